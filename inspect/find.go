package inspect

import (
	"encoding/json"
	"mime"
	"net/http"
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/qi-realtime/ws"
)

const (
	// maxFound is the most clients that a search returns.
	maxFound = 100
	// maxRoomIDs is the most rooms that are listed for one of them.
	maxRoomIDs = 1000
)

// found is a client that a viewer has looked up. Immutable.
type found struct {
	client
	RoomIDs  []string        `json:"room_ids"`
	Metadata json.RawMessage `json:"metadata,omitempty"`
}

func (h *handler) describe(c *ws.Client) found {
	f := found{client: describeClient(c), RoomIDs: c.GetRooms()}
	f.RoomIDs = f.RoomIDs[:min(len(f.RoomIDs), maxRoomIDs)]
	if h.metadata == nil {
		return f
	}
	encoded, err := json.Marshal(h.metadata(c))
	if err != nil {
		encoded, _ = json.Marshal(map[string]string{"error": err.Error()})
	}
	f.Metadata = encoded
	return f
}

func (h *handler) serveClient(w http.ResponseWriter, r *http.Request) {
	clients, failure := h.find(r)
	if failure != "" {
		fail(w, http.StatusBadRequest, failure)
		return
	}
	answer := struct {
		Clients   []found `json:"clients"`
		Truncated bool    `json:"truncated"`
	}{[]found{}, len(clients) > maxFound}
	for _, c := range clients[:min(len(clients), maxFound)] {
		answer.Clients = append(answer.Clients, h.describe(c))
	}
	reply(w, http.StatusOK, answer)
}

// find returns the clients that r asks for, or the mistake in r.
func (h *handler) find(r *http.Request) (clients []*ws.Client, failure string) {
	query := r.URL.Query()
	id, user, address := query.Get("id"), query.Get("user"), query.Get("address")
	switch {
	case len(query) != 1:
	case id != "":
		if c, ok := h.manager.GetClient(id); ok {
			clients = append(clients, c)
		}
		return clients, ""
	case user != "":
		return h.manager.UserClients(user), ""
	case address != "":
		matches, ok := addressMatcher(address)
		if !ok {
			return nil, "address is an IP address, with or without a port"
		}
		return h.withAddress(matches), ""
	}
	return nil, "ask for one of id, user and address"
}

// withAddress returns the clients with an address that matches, up to one more than maxFound.
func (h *handler) withAddress(matches func(string) bool) (clients []*ws.Client) {
	h.search.Lock()
	defer h.search.Unlock()
	w := walk{onStep: h.onStep}
	h.manager.RangeClients(func(c *ws.Client) bool {
		if matches(c.RemoteAddr()) {
			clients = append(clients, c)
		}
		w.visit()
		return len(clients) <= maxFound
	})
	return clients
}

// addressMatcher returns the check of a client's address that a viewer asks for: of the IP
// address, or of the port too.
func addressMatcher(want string) (matches func(string) bool, ok bool) {
	want = strings.TrimSpace(want)
	if full, err := netip.ParseAddrPort(want); err == nil {
		text := netip.AddrPortFrom(full.Addr().Unmap(), full.Port()).String()
		return func(address string) bool { return address == text }, true
	}
	addr, err := netip.ParseAddr(strings.Trim(want, "[]"))
	if err != nil {
		return nil, false
	}
	prefix, _ := strings.CutSuffix(netip.AddrPortFrom(addr.Unmap(), 0).String(), "0")
	return func(address string) bool { return strings.HasPrefix(address, prefix) }, true
}

const (
	maxCloseBody   = 4 << 10
	maxCloseReason = 123 // bytes (RFC 6455 section 5.5)
)

// closeRequest is the body of api/close.
type closeRequest struct {
	ID     string `json:"id"`
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

func (h *handler) serveClose(w http.ResponseWriter, r *http.Request) {
	if !h.mayClose {
		fail(w, http.StatusForbidden, "closing is off; see inspect.AllowClose")
		return
	}
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	err := http.NewCrossOriginProtection().Check(r)
	if err != nil || r.Header.Get("X-Inspect") != "close" || media != "application/json" {
		fail(w, http.StatusForbidden, "closing needs the same origin, X-Inspect: close and a body of application/json")
		return
	}
	req := closeRequest{Code: ws.CloseNormal}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCloseBody)).Decode(&req); err != nil {
		fail(w, http.StatusBadRequest, "the body is no request to close")
		return
	}
	if !sendable(req.Code) || len(req.Reason) > maxCloseReason || !utf8.ValidString(req.Reason) {
		fail(w, http.StatusBadRequest, "code is 1000 to 1003, 1007 to 1014 or 3000 to 4999; reason has at most 123 bytes")
		return
	}
	c, ok := h.manager.GetClient(req.ID)
	if !ok {
		fail(w, http.StatusNotFound, "no client has this ID")
		return
	}
	c.CloseWithCode(req.Code, req.Reason)
	reply(w, http.StatusOK, map[string]bool{"closed": true})
}

// sendable reports whether a close frame may have that code (RFC 6455 section 7.4).
func sendable(code int) bool {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014:
		return true
	}
	return code >= 3000 && code <= 4999
}
