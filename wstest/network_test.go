package wstest_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/wstest"
)

func TestConversationOnANetwork(t *testing.T) {
	network := wstest.NewNetwork(t)
	s := network.Start(newChat(t, network.Option(), ws.WithLoops(2)))
	ann, bob := s.Dial(nil), s.Dial(nil)
	assert.Equal(t, 200, ann.Request("say", said{"one"}).Code)
	for _, c := range []*wstest.Client{ann, bob} {
		var first said
		c.Expect("said", &first)
		assert.Equal(t, said{"one"}, first)
	}
	bob.Notify("leave", nil)
	code, reason := bob.ExpectClose()
	assert.Equal(t, 4001, code)
	assert.Equal(t, "as you wish", reason)
	ann.Close()
}

// TestTimePassesInAdvance holds that a test of a timeout does not wait for it.
func TestTimePassesInAdvance(t *testing.T) {
	network := wstest.NewNetwork(t)
	s := network.Start(newChat(t, network.Option()))
	c := s.Dial(nil)
	before := s.Manager.Stats().Total.Writes
	network.Advance(10 * time.Minute)
	assert.InDelta(t, 20, s.Manager.Stats().Total.Writes-before, 2, "heartbeats")
	assert.Equal(t, 200, c.Request("join", nil).Code)
}

func TestNetworkRefuses(t *testing.T) {
	network := wstest.NewNetwork(t)
	s := network.Start(newChat(t, network.Option(), ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
		if r.Header.Get("Token") != "secret" {
			return nil, &ws.HandshakeError{Status: http.StatusForbidden}
		}
		return nil, nil
	})))
	_, err := s.TryDial(nil)
	require.Error(t, err)
	s.Dial(http.Header{"Token": {"secret"}}).Close()
}
