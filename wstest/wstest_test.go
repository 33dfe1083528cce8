package wstest_test

import (
	"net/http"
	"testing"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/wstest"
)

type said struct{ Text string }

// newChat returns the Manager of an application: "say" sends a text to all members of a room, and
// "leave" closes the connection.
func newChat(t *testing.T, opts ...ws.Option) *ws.Manager {
	t.Helper()
	m, err := ws.NewManager(opts...)
	require.NoError(t, err)
	require.NoError(t, ws.HandleOnly(m, "join", func(c *ws.Client) (*said, error) {
		return &said{"welcome"}, c.JoinRoom("lobby")
	}))
	require.NoError(t, ws.Handle0(m, "say", func(c *ws.Client, s *said) error {
		if s.Text == "" {
			return ws.NewClientError(422, "nothing said")
		}
		notify, err := ws.NewNotifyMessageSimple("said", s)
		if err != nil {
			return err
		}
		m.RangeClients(func(member *ws.Client) bool {
			_ = member.SendJSON(notify)
			return true
		})
		return nil
	}))
	require.NoError(t, ws.HandleOnly(m, "leave", func(c *ws.Client) (*said, error) {
		c.CloseWithCode(4001, "as you wish")
		return nil, nil
	}))
	return m
}

func TestConversation(t *testing.T) {
	s := wstest.Start(t, newChat(t))
	ann, bob := s.Dial(nil), s.Dial(nil)
	reply := ann.Request("join", nil)
	assert.Equal(t, 200, reply.Code)
	assert.JSONEq(t, `{"Text":"welcome"}`, string(reply.Data))

	assert.Equal(t, 200, ann.Request("say", said{"one"}).Code)
	ann.Notify("say", said{"two"})
	for _, c := range []*wstest.Client{ann, bob} {
		var first, second said
		c.Expect("said", &first)
		c.Expect("said", &second)
		assert.Equal(t, []said{{"one"}, {"two"}}, []said{first, second})
	}
	reply = bob.Request("say", said{})
	assert.Equal(t, ws.TypeError, reply.Type)
	assert.Equal(t, 422, reply.Code)
	assert.Equal(t, "nothing said", reply.Message)

	require.NoError(t, s.Manager.BroadcastToRoom("lobby", []byte("plain"), nil))
	assert.Equal(t, "plain", ann.Next())

	bob.Notify("leave", nil)
	code, reason := bob.ExpectClose()
	assert.Equal(t, 4001, code)
	assert.Equal(t, "as you wish", reason)
	bob.Close()
	ann.Close()
}

func TestRefusal(t *testing.T) {
	s := wstest.Start(t, newChat(t, ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
		if r.Header.Get("Authorization") != "Bearer ann" {
			return nil, &ws.HandshakeError{Status: http.StatusForbidden}
		}
		return []ws.ClientOption{ws.WithUserID(7)}, nil
	})))
	_, err := s.TryDial(nil)
	require.Equal(t, gobwas.StatusError(http.StatusForbidden), err)
	s.Dial(http.Header{"Authorization": {"Bearer ann"}}).Close()
}
