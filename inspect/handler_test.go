package inspect_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/inspect"
	"github.com/qi-realtime/ws/internal/harness"
)

// ask sends a request with header lines, name and value in turn, and decodes the answer.
func ask(
	t *testing.T, h http.Handler, method, target, body string, header ...string,
) (status int, answer map[string]any) {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "localhost:6060"
	for i := 0; i < len(header); i += 2 {
		if r.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer), "%s", w.Body)
	}
	return w.Code, answer
}

// get is ask for an answer of status 200.
func get(t *testing.T, h http.Handler, target string) map[string]any {
	t.Helper()
	inspect.Expire(h)
	status, answer := ask(t, h, http.MethodGet, target, "")
	require.Equal(t, http.StatusOK, status, "%v", answer)
	return answer
}

// entry returns entry i of a list in an answer.
func entry(t *testing.T, answer map[string]any, list string, i int) map[string]any {
	t.Helper()
	entries := answer[list].([]any)
	require.Greater(t, len(entries), i, "%s", list)
	return entries[i].(map[string]any)
}

func TestStats(t *testing.T) {
	s := harness.Start(t)
	h := inspect.Handler(s.Manager)
	c := s.Dial(harness.Native)
	c.Send(harness.Request("nobody", "1", ""))
	c.Next()
	s.Status(harness.Native, "Origin: https://elsewhere.example\r\n")

	answer := get(t, h, "/api/stats")
	assert.InDelta(t, time.Now().UnixMilli(), answer["at"], float64(time.Minute.Milliseconds()))
	assert.Equal(t, false, answer["may_close"])
	manager := answer["manager"].(map[string]any)
	assert.EqualValues(t, 1, manager["clients"])
	harness.Eventually(t, func() bool {
		manager := get(t, h, "/api/stats")["manager"].(map[string]any)
		return manager["refused_total"].(map[string]any)["origin"] == 1.0
	}, "the refusal is not counted")
	loops := answer["loops"].([]any)
	require.Len(t, loops, 2)
	messages := 0.0
	for _, loop := range loops {
		messages += loop.(map[string]any)["messages_in_total"].(float64)
		assert.Contains(t, loop.(map[string]any)["drops_total"], "expired")
	}
	assert.Equal(t, 1.0, messages)

	figures := get(t, h, "/api/figures")
	assert.Equal(t, map[string]any{"help": "connected clients", "counter": false}, figures["clients"])
	for name := range manager {
		assert.Contains(t, figures, name)
	}
	for name := range loops[0].(map[string]any) {
		assert.Contains(t, figures, "loop_"+name)
	}
}

func TestStatsOfADrain(t *testing.T) {
	s := harness.Start(t)
	h := inspect.Handler(s.Manager)
	assert.Equal(t, "none", get(t, h, "/api/stats")["drain"].(map[string]any)["phase"])
	c := s.Dial(harness.Native)
	ctx, cancel := context.WithCancel(context.Background())
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(ctx, ws.DrainConfig{Grace: -1, Window: time.Hour}) }()
	harness.Eventually(t, func() bool {
		drain := get(t, h, "/api/stats")["drain"].(map[string]any)
		return drain["phase"] == "slots" && drain["total"] == 1.0 && drain["remaining"] == 1.0
	}, "no drain")
	cancel()
	require.ErrorIs(t, harness.Receive(t, drained, "Drain did not return"), context.Canceled)
	c.ExpectClose(1012)
	c.Finish(1012)
	harness.Eventually(t, func() bool {
		drain := get(t, h, "/api/stats")["drain"].(map[string]any)
		return drain["phase"] == "done" && drain["forced"] == 1.0 && drain["remaining"] == 0.0
	}, "the forced end is not shown")
}

func TestHistory(t *testing.T) {
	s := harness.Start(t)
	h := inspect.Handler(s.Manager)
	first := get(t, h, "/api/history")
	points := first["points"].([]any)
	require.Len(t, points, 1)
	at := points[0].([]any)[0].(float64)

	c := s.Dial(harness.Native)
	c.Send(harness.Request("nobody", "1", ""))
	c.Next()
	<-time.After(2 * time.Millisecond) // the resolution of a point's time
	later := get(t, h, "/api/history?after="+string(must(json.Marshal(at))))
	points = later["points"].([]any)
	require.Len(t, points, 1, "points after the first")
	place := 0
	for i, series := range later["series"].([]any) {
		if series.(map[string]any)["name"] == "messages_in_total" {
			place = i + 1
		}
	}
	require.NotZero(t, place)
	assert.Equal(t, 1.0, points[0].([]any)[place])

	status, _ := ask(t, h, http.MethodGet, "/api/history?after=noon", "")
	assert.Equal(t, http.StatusBadRequest, status)
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestRooms(t *testing.T) {
	s := harness.Start(t)
	h := inspect.Handler(s.Manager)
	assert.Equal(t, []any{}, get(t, h, "/api/rooms")["rooms"])
	for i := range 3 {
		_, sc := s.DialClient(harness.Native)
		require.NoError(t, sc.JoinRoom("large"))
		if i == 0 {
			require.NoError(t, sc.JoinRoom("busy"))
		}
	}
	for range 20 {
		require.NoError(t, s.BroadcastToRoom("busy", []byte("x"), nil))
	}
	require.NoError(t, s.BroadcastToRoom("large", []byte("x"), nil))

	answer := get(t, h, "/api/rooms?by=members")
	assert.Equal(t, 2.0, answer["total"])
	large := entry(t, answer, "rooms", 0)
	assert.Equal(t, "large", large["id"])
	assert.Equal(t, 3.0, large["members"])
	assert.InDelta(t, 3*large["messages_per_second"].(float64), large["deliveries_per_second"], 1e-3)
	assert.Positive(t, large["messages_per_second"])
	assert.Equal(t, "busy", entry(t, get(t, h, "/api/rooms?by=traffic"), "rooms", 0)["id"])
	assert.Len(t, get(t, h, "/api/rooms?n=1")["rooms"], 1)
	for _, query := range []string{"by=name", "n=0", "n=101", "n=many"} {
		status, answer := ask(t, h, http.MethodGet, "/api/rooms?"+query, "")
		assert.Equal(t, http.StatusBadRequest, status, query)
		assert.NotEmpty(t, answer["error"], query)
	}
}

func TestClients(t *testing.T) {
	s := harness.Start(t, harness.WithDeepQueue, ws.WithAuthenticate(harness.ByQuery), ws.WithUnsentBytes(16<<10),
		ws.WithHeartbeatInterval(20*time.Millisecond), ws.WithHeartbeatTimeout(time.Hour))
	h := inspect.Handler(s.Manager)
	_, stalled := s.DialClient(harness.Native, "id=stalled", "user=7")
	s.Stall(stalled)
	reader := s.Dial(harness.NetHTTP, "id=reader")
	f := reader.ReadFrame()
	require.Equal(t, gobwas.OpPing, f.Header.OpCode)
	reader.WriteRaw(harness.Frame(gobwas.OpPong, string(f.Payload)))

	var answer map[string]any
	harness.Eventually(t, func() bool { // a ping to the reader may be in its queue, for a moment
		answer = get(t, h, "/api/clients")
		return len(answer["clients"].([]any)) == 1
	}, "clients without a queue are not left out")
	assert.Equal(t, 2.0, answer["total"])
	c := entry(t, answer, "clients", 0)
	assert.Equal(t, "stalled", c["id"])
	assert.Equal(t, "7", c["user"])
	assert.Equal(t, stalled.RemoteAddr(), c["address"])
	assert.Equal(t, "/ws", c["path"])
	assert.Equal(t, true, c["blocked"])
	assert.Positive(t, c["queued_bytes"])
	assert.Positive(t, c["queued_messages"])
	assert.InDelta(t, time.Now().UnixMilli(), c["connected_at"], float64(2*harness.Patience.Milliseconds()))

	harness.Eventually(t, func() bool {
		clients := get(t, h, "/api/clients?by=round_trip")["clients"].([]any)
		return len(clients) == 1 && clients[0].(map[string]any)["id"] == "reader"
	}, "no round trip")
	reply := entry(t, get(t, h, "/api/clients?by=round_trip"), "clients", 0)
	assert.Positive(t, reply["round_trip_ms"])
	assert.Empty(t, reply["path"], "through HandleUpgrade")
	status, _ := ask(t, h, http.MethodGet, "/api/clients?by=name", "")
	assert.Equal(t, http.StatusBadRequest, status)
}

func TestFind(t *testing.T) {
	s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery))
	h := inspect.Handler(s.Manager)
	for _, query := range []string{"id=a&username=ann&color=red", "id=b&username=ann", "id=c"} {
		_, sc := s.DialClient(harness.Native, query)
		require.NoError(t, sc.JoinRoom("lobby"))
	}
	found := func(query string) (ids []string) {
		for _, c := range get(t, h, "/api/client?"+query)["clients"].([]any) {
			ids = append(ids, c.(map[string]any)["id"].(string))
		}
		return ids
	}
	assert.Equal(t, []string{"a"}, found("id=a"))
	assert.Empty(t, found("id=nobody"))
	assert.ElementsMatch(t, []string{"a", "b"}, found("user=ann"))
	assert.ElementsMatch(t, []string{"a", "b", "c"}, found("address=127.0.0.1"))
	a, _ := s.GetClient("a")
	assert.Equal(t, []string{"a"}, found("address="+a.RemoteAddr()))
	assert.Empty(t, found("address=192.0.2.1"))
	for _, query := range []string{"", "id=", "id=a&user=ann", "address=localhost", "name=a"} {
		status, _ := ask(t, h, http.MethodGet, "/api/client?"+query, "")
		assert.Equal(t, http.StatusBadRequest, status, query)
	}

	c := entry(t, get(t, h, "/api/client?id=a"), "clients", 0)
	assert.Equal(t, []any{"lobby"}, c["room_ids"])
	assert.Equal(t, 1.0, c["rooms"])
	assert.NotContains(t, c, "metadata", "shown only with the option")
	color := func(c *ws.Client) any {
		v, _ := c.GetMetadata("color")
		return map[string]any{"color": v}
	}
	open := inspect.Handler(s.Manager, inspect.Metadata(color))
	c = entry(t, get(t, open, "/api/client?id=a"), "clients", 0)
	assert.Equal(t, map[string]any{"color": "red"}, c["metadata"])
	broken := inspect.Handler(s.Manager, inspect.Metadata(func(*ws.Client) any { return func() {} }))
	c = entry(t, get(t, broken, "/api/client?id=a"), "clients", 0)
	assert.Contains(t, c["metadata"].(map[string]any)["error"], "unsupported type")
}

func TestFindIsBounded(t *testing.T) {
	s := harness.Start(t)
	h := inspect.Handler(s.Manager)
	for range 101 {
		s.Dial(harness.Native)
	}
	answer := get(t, h, "/api/client?address=127.0.0.1")
	assert.Len(t, answer["clients"], 100)
	assert.Equal(t, true, answer["truncated"])
}

func TestClose(t *testing.T) {
	own := []string{"Content-Type", "application/json", "X-Inspect", "close"}
	with := func(header ...string) []string { return append(header, own...) }
	for _, tt := range []struct {
		name, body string
		header     []string
		status     int
	}{
		{"no header", `{"id":"a"}`, nil, 403},
		{"a form of another page", `{"id":"a"}`, []string{"Content-Type", "text/plain", "X-Inspect", "close"}, 403},
		{"another site", `{"id":"a"}`, with("Sec-Fetch-Site", "cross-site"), 403},
		{"another port", `{"id":"a"}`, with("Sec-Fetch-Site", "same-site"), 403},
		{"another origin", `{"id":"a"}`, with("Origin", "https://elsewhere.example"), 403},
		{"another host", `{"id":"a"}`, with("Host", "elsewhere.example"), 421},
		{"no JSON", `a`, own, 400},
		{"too long", `{"id":"` + strings.Repeat("a", 5000) + `"}`, own, 400},
		{"a code that is not sent", `{"id":"a","code":1006}`, own, 400},
		{"a long reason", `{"id":"a","reason":"` + strings.Repeat("r", 124) + `"}`, own, 400},
		{"nobody", `{"id":"nobody"}`, own, 404},
		{"from no browser", `{"id":"a","code":4000,"reason":"go"}`, own, 200},
		{
			"from the page", `{"id":"a","code":4000,"reason":"go"}`,
			with("Sec-Fetch-Site", "same-origin", "Origin", "http://localhost:6060"), 200,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery))
			c, sc := s.DialClient(harness.Native, "id=a")
			h := inspect.Handler(s.Manager, inspect.AllowClose())
			status, answer := ask(t, h, http.MethodPost, "/api/close", tt.body, tt.header...)
			assert.Equal(t, tt.status, status, "%v", answer)
			require.Equal(t, tt.status == 200, sc.IsClosed())
			if tt.status == 200 {
				assert.Equal(t, "go", c.ExpectClose(4000))
			}
		})
	}
	s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery))
	_, sc := s.DialClient(harness.Native, "id=a")
	status, _ := ask(t, inspect.Handler(s.Manager), http.MethodPost, "/api/close", `{"id":"a"}`, own...)
	assert.Equal(t, http.StatusForbidden, status, "off by default")
	allowed := inspect.Handler(s.Manager, inspect.AllowClose())
	status, _ = ask(t, allowed, http.MethodGet, "/api/close", `{"id":"a"}`, own...)
	assert.Equal(t, http.StatusNotFound, status)
	assert.False(t, sc.IsClosed())
}

func TestHosts(t *testing.T) {
	m := harness.NewManager(t)
	plain, named := inspect.Handler(m), inspect.Handler(m, inspect.AllowHosts("Admin.Internal"))
	for _, tt := range []struct {
		host         string
		plain, named bool
	}{
		{"localhost", true, true},
		{"LOCALHOST:6060", true, true},
		{"localhost.:6060", true, true},
		{"app.localhost", true, true},
		{"127.0.0.1:6060", true, true},
		{"10.0.0.7", true, true},
		{"[::1]:6060", true, true},
		{"[::1]", true, true},
		{"admin.internal:6060", false, true},
		{"admin.internal.attacker.example", false, false},
		{"localhost.attacker.example", false, false},
		{"notlocalhost", false, false},
		{"127.0.0.1.attacker.example", false, false},
		{"", false, false},
	} {
		for h, want := range map[http.Handler]bool{plain: tt.plain, named: tt.named} {
			for _, target := range []string{"/", "/api/stats"} {
				status, _ := ask(t, h, http.MethodGet, target, "", "Host", tt.host)
				assert.Equal(t, want, status == http.StatusOK, "%q: %d", tt.host, status)
			}
		}
	}
}

// Pages of other origins get nothing, not even an answer whose time they could measure.
func TestOtherOriginsAreRefused(t *testing.T) {
	h := inspect.Handler(harness.NewManager(t))
	for _, tt := range []struct {
		target, site, mode, dest string
		status                   int
	}{
		{"/api/stats", "same-origin", "cors", "empty", 200},
		{"/api/stats", "none", "navigate", "document", 200},
		{"/api/stats", "cross-site", "no-cors", "script", 403},
		{"/api/stats", "cross-site", "navigate", "document", 403},
		{"/page.js", "same-site", "no-cors", "script", 403},
		{"/", "cross-site", "navigate", "document", 200}, // a link
		{"/", "cross-site", "navigate", "iframe", 403},
	} {
		status, _ := ask(t, h, http.MethodGet, tt.target, "", "Sec-Fetch-Site", tt.site, "Sec-Fetch-Mode", tt.mode,
			"Sec-Fetch-Dest", tt.dest)
		assert.Equal(t, tt.status, status, "%+v", tt)
	}
}

func TestPageAndHeaders(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/inspect/", http.StripPrefix("/inspect", inspect.Handler(harness.NewManager(t))))
	for target, media := range map[string]string{
		"": "text/html", "page.js": "javascript", "style.css": "text/css", "icon.svg": "image/svg",
		"api/stats": "application/json",
	} {
		r := httptest.NewRequest(http.MethodGet, "/inspect/"+target, nil)
		r.Host = "127.0.0.1"
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		require.Equal(t, http.StatusOK, w.Code, target)
		assert.Contains(t, w.Header().Get("Content-Type"), media)
		assert.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'")
		assert.NotContains(t, w.Header().Get("Content-Security-Policy"), "unsafe")
		assert.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
		assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		assert.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
		assert.NotRegexp(t, `(href|src)="(https?:)?//`, w.Body.String(), "%s names another server", target)
	}
}
