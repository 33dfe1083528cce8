package conformance_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// section holds the cases of one part of the RFC.
type section struct {
	name   string
	cases  []testCase
	opts   []ws.Option // of the server
	ways   []way       // empty for both
	pooled bool        // the handler runs on workers
	offer  string      // header lines of the handshake, with compression
	agree  func(c *client, resp *http.Response)
}

// testCase holds the frames that a client sends behind the handshake, and the frames that it must
// read. Unless code or ended is set, the connection must stay open and close orderly on request.
type testCase struct {
	id    string
	send  []byte
	chop  int     // bytes of each write; 0 for a single write
	want  []frame // the first answers, in this order
	then  []byte  // sent after want
	code  uint16  // then a close frame with this code and a reason, and the end
	ended bool    // then the end; the close frame is in want

	large func() (sent, want []frame) // makes send and want when the case runs, if not nil
}

// run runs one case on an open connection.
func (tc *testCase) run(c *client) {
	c.t.Helper()
	send, want := tc.send, tc.want
	if tc.large != nil {
		var sent []frame
		sent, want = tc.large()
		send = wire(sent...)
	}
	written := make(chan error, 1)
	go func() { written <- c.write(send, tc.chop) }() // waited for, or ended by the connection's end
	c.expect(want...)
	if tc.then != nil {
		require.NoError(c.t, <-written)
		go func() { written <- c.write(tc.then, tc.chop) }() // as above
	}
	switch {
	case tc.code != 0:
		c.expectFailure(tc.code)
	case tc.ended:
		c.expectEnd()
	default:
		require.NoError(c.t, <-written)
		c.expectAlive()
		return
	}
	_ = c.Close()
	<-written // the server may have closed the connection before the end of the write
}

// run runs the cases of a section, each on a connection of its own.
func (sec section) run(t *testing.T) {
	s := start(t, sec.opts...)
	ways := sec.ways
	if ways == nil {
		ways = bothWays[:]
	}
	for _, w := range ways {
		for _, tc := range sec.cases {
			t.Run(string(w)+"/"+tc.id, func(t *testing.T) {
				t.Parallel()
				c, resp := s.connect(t, w, sec.offer)
				if sec.agree != nil {
					sec.agree(c, resp)
				}
				if sec.pooled {
					tc.runPooled(c)
					return
				}
				tc.run(c)
			})
		}
	}
}

// echoes returns a case of messages that come back unchanged.
func echoes(id string, chop int, messages ...frame) testCase {
	return testCase{id: id, send: wire(messages...), chop: chop, want: messages}
}

// sections returns all sections but the handshake, which has another kind of table.
func sections() []section {
	return []section{
		framing(), masking(), reserved(), fragmentation(), orders(), control(), messages(), closes(), validUTF8(),
		invalidUTF8(), limits(),
	}
}

// TestCount checks the number of cases, and that all names differ.
func TestCount(t *testing.T) {
	total := 0
	seen := make(map[string]bool)
	count := func(name string, ids []string) {
		t.Logf("%4d %s", len(ids), name)
		total += len(ids)
		for _, id := range ids {
			assert.False(t, seen[id], "two cases %q", id)
			assert.True(t, strings.Contains(id, "/"), "%q names no section", id)
			seen[id] = true
		}
	}
	for _, sec := range sections() {
		var ids []string
		for _, tc := range sec.cases {
			ids = append(ids, tc.id)
		}
		count(sec.name, ids)
	}
	var ids []string
	for _, hc := range handshakes() {
		ids = append(ids, hc.id)
	}
	count("4 handshake", ids)
	t.Logf("%4d cases", total)
	require.Greater(t, total-len(orders().cases), 450, "without the enumerated orders")
}
