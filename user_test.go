package ws_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// Every device of a user gets a message, on whichever loop and way it is.
func TestBroadcastToUserReachesAllDevices(t *testing.T) {
	s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery), ws.WithLoops(3))
	devices := map[int64][]*harness.Client{}
	for i := range 24 {
		user := int64(i % 5)
		devices[user] = append(devices[user], s.Dial([]harness.Way{harness.Native, harness.NetHTTP}[i%2],
			fmt.Sprint("user=", user)))
	}
	for user := range int64(5) {
		s.BroadcastToUser(user, fmt.Append(nil, "for user ", user))
	}
	s.BroadcastAll([]byte("fence"))
	for user, conns := range devices {
		for _, c := range conns {
			if user != 0 { // nobody
				c.Expect(fmt.Sprint("for user ", user))
			}
			c.Expect("fence")
		}
	}
}

// The index of devices follows connections that come and go.
func TestDevicesComeAndGo(t *testing.T) {
	s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery))
	stays := s.Dial(harness.Native, "user=1")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 15 {
				c, err := s.TryDial([]harness.Way{harness.Native, harness.NetHTTP}[i%2], "user=1")
				if assert.NoError(t, err) {
					assert.NoError(t, c.Close())
				}
			}
		})
	}
	for i := range 100 {
		s.BroadcastToUser(1, fmt.Append(nil, i))
		stays.Expect(fmt.Sprint(i))
	}
	wg.Wait()
	harness.Eventually(t, func() bool { return s.GetClientCount() == 1 }, "%d clients", s.GetClientCount())
	s.BroadcastToUser(1, []byte("end"))
	stays.Expect("end")
}

// With WithUserID on HandleUpgrade's own options, those of Authenticate win.
func TestUpgradeOptionsAndAuthenticate(t *testing.T) {
	s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery))
	s.Web.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Upgrades <- s.HandleUpgrade(w, r, ws.WithUserID(5), ws.WithMetadata("a", 1), ws.WithMetadata("b", 2))
	})
	_, sc := s.DialClient(harness.NetHTTP, "b=query")
	require.NoError(t, harness.Receive(t, s.Upgrades, "HandleUpgrade did not return"))
	assert.Equal(t, int64(5), sc.UserID)
	a, _ := sc.GetMetadata("a")
	b, _ := sc.GetMetadata("b")
	assert.Equal(t, 1, a)
	assert.Equal(t, "query", b)
	_, sc = s.DialClient(harness.NetHTTP, "user=6")
	assert.Equal(t, int64(6), sc.UserID)
}

// A user is found by its name, be it an integer or not, and the decimal text of an integer is
// the same user.
func TestUsersByName(t *testing.T) {
	s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery), ws.WithLoops(2))
	for i, tt := range []struct {
		query, name string
		id          int64
	}{
		{"user=7", "7", 7},
		{"username=7", "7", 7},
		{"user=-9", "-9", -9},
		{"username=07", "07", 0},
		{"username=%2B7", "+7", 0},
		{"username=ann", "ann", 0},
		{"username=9223372036854775808", "9223372036854775808", 0},
		{"username=", "", 0},
		{"username=0", "0", 0},
		{"user=0", "", 0},
	} {
		t.Run(tt.query, func(t *testing.T) {
			before := len(s.UserClients(tt.name))
			c, sc := s.DialClient([]harness.Way{harness.Native, harness.NetHTTP}[i%2], tt.query)
			assert.Equal(t, tt.name, sc.User())
			assert.Equal(t, tt.id, sc.UserID)
			if tt.name == "" {
				assert.Empty(t, s.UserClients(""))
				return
			}
			assert.Len(t, s.UserClients(tt.name), before+1)
			assert.Contains(t, s.UserClients(tt.name), sc)
			report, err := s.PublishToUser(tt.name, []byte("hello "+tt.name))
			require.NoError(t, err)
			<-report.Done()
			assert.Equal(t, before+1, report.Queued())
			c.Expect("hello " + tt.name)
		})
	}
	assert.Len(t, s.UserClients("7"), 2)
	require.NoError(t, s.BroadcastToUser(7, []byte("both")))
}

// A user is offline when its last device has gone, and keeps its name there.
func TestUserGoesOffline(t *testing.T) {
	s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery))
	for _, query := range []string{"user=7", "username=ann"} {
		c, sc := s.DialClient(harness.Native, query)
		name := sc.User()
		assert.NotEmpty(t, s.UserClients(name))
		_ = c.Close()
		harness.Eventually(t, func() bool { return len(s.UserClients(name)) == 0 }, "%s is online", name)
		harness.Eventually(t, sc.IsClosed, "not closed")
		assert.Equal(t, name, sc.User())
	}
}
