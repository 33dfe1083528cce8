package inspect

import (
	"net/http"
	"strconv"
	"time"

	"github.com/qi-realtime/ws"
)

// room is a room in an answer. Immutable.
type room struct {
	ID         string  `json:"id"`
	Members    int     `json:"members"`
	Messages   float64 `json:"messages_per_second"`
	Deliveries float64 `json:"deliveries_per_second"`
	Lost       uint64  `json:"lost"`
	Conflated  uint64  `json:"conflated"`
}

// roomRanking is the largest and busiest rooms. Immutable.
type roomRanking struct {
	at                   int64
	total                int
	byMembers, byTraffic []room
}

// rankRooms visits all rooms.
func (h *handler) rankRooms() roomRanking {
	var byMembers, byTraffic ranking[*ws.Room]
	w := walk{onStep: h.onStep}
	h.manager.RangeRooms(func(r *ws.Room) bool {
		members := r.MemberCount()
		byMembers.add(float64(members), r.ID(), r)
		byTraffic.add(r.PublishRate()*float64(members), r.ID(), r)
		w.visit()
		return true
	})
	return roomRanking{
		at: time.Now().UnixMilli(), total: w.visits,
		byMembers: describeRooms(byMembers.sorted()), byTraffic: describeRooms(byTraffic.sorted()),
	}
}

func describeRooms(rooms []*ws.Room) []room {
	described := make([]room, len(rooms))
	for i, r := range rooms {
		drops := r.Drops()
		rate, members := r.PublishRate(), r.MemberCount()
		described[i] = room{
			ID: r.ID(), Members: members, Messages: rate, Deliveries: rate * float64(members),
			Lost: drops.Lost(), Conflated: drops.Conflated,
		}
	}
	return described
}

func (h *handler) serveRooms(w http.ResponseWriter, r *http.Request) {
	n, ok := count(w, r)
	if !ok {
		return
	}
	ranking := h.rooms.get()
	rooms := ranking.byMembers
	switch r.FormValue("by") {
	case "", "members":
	case "traffic":
		rooms = ranking.byTraffic
	default:
		fail(w, http.StatusBadRequest, "by is members or traffic")
		return
	}
	reply(w, http.StatusOK, struct {
		At    int64  `json:"at"`
		Total int    `json:"total"`
		Rooms []room `json:"rooms"`
	}{ranking.at, ranking.total, rooms[:min(n, len(rooms))]})
}

// client is a client in an answer. Immutable.
type client struct {
	ID              string  `json:"id"`
	User            string  `json:"user"`
	Address         string  `json:"address"`
	Loop            int     `json:"loop"`
	ConnectedAt     int64   `json:"connected_at"`
	Path            string  `json:"path"`
	TLS             bool    `json:"tls"`
	Subprotocol     string  `json:"subprotocol"`
	Compression     bool    `json:"compression"`
	ContextTakeover bool    `json:"context_takeover"`
	RoundTrip       float64 `json:"round_trip_ms"`
	QueuedBytes     int     `json:"queued_bytes"`
	QueuedMessages  int     `json:"queued_messages"`
	Blocked         bool    `json:"blocked"`
	Unhandled       int     `json:"unhandled"`
	Rooms           int     `json:"rooms"`
	Closing         bool    `json:"closing"`
}

func describeClient(c *ws.Client) client {
	i := c.Info()
	return client{
		ID: i.ID, User: i.User, Address: i.RemoteAddr, Loop: i.Loop, ConnectedAt: i.Since.UnixMilli(),
		Path: i.Path, TLS: i.TLS, Subprotocol: i.Subprotocol,
		Compression: i.Compressed, ContextTakeover: i.ContextTakeover,
		RoundTrip:   float64(i.RoundTrip) / float64(time.Millisecond),
		QueuedBytes: i.QueuedBytes, QueuedMessages: i.QueuedMessages, Blocked: i.Blocked,
		Unhandled: i.Unhandled, Rooms: i.Rooms, Closing: i.Closing,
	}
}

// clientRanking is the slowest clients. Immutable.
type clientRanking struct {
	at                    int64
	total                 int
	byQueued, byRoundTrip []client
}

// rankClients visits all clients.
func (h *handler) rankClients() clientRanking {
	var byQueued, byRoundTrip ranking[*ws.Client]
	w := walk{onStep: h.onStep}
	h.manager.RangeClients(func(c *ws.Client) bool {
		byQueued.add(float64(c.QueuedBytes()), c.ID, c)
		byRoundTrip.add(float64(c.RoundTrip()), c.ID, c)
		w.visit()
		return true
	})
	return clientRanking{
		at: time.Now().UnixMilli(), total: w.visits,
		byQueued: describeClients(byQueued.sorted()), byRoundTrip: describeClients(byRoundTrip.sorted()),
	}
}

func describeClients(clients []*ws.Client) []client {
	described := make([]client, len(clients))
	for i, c := range clients {
		described[i] = describeClient(c)
	}
	return described
}

func (h *handler) serveClients(w http.ResponseWriter, r *http.Request) {
	n, ok := count(w, r)
	if !ok {
		return
	}
	ranking := h.clients.get()
	clients := ranking.byQueued
	switch r.FormValue("by") {
	case "", "queued":
	case "round_trip":
		clients = ranking.byRoundTrip
	default:
		fail(w, http.StatusBadRequest, "by is queued or round_trip")
		return
	}
	reply(w, http.StatusOK, struct {
		At      int64    `json:"at"`
		Total   int      `json:"total"`
		Clients []client `json:"clients"`
	}{ranking.at, ranking.total, clients[:min(n, len(clients))]})
}

// count returns the number of entries that a viewer asks for. If there is none in the request, it
// is 20.
func count(w http.ResponseWriter, r *http.Request) (n int, ok bool) {
	text := r.FormValue("n")
	if text == "" {
		return 20, true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxRanked {
		fail(w, http.StatusBadRequest, "n is a number from 1 to "+strconv.Itoa(maxRanked))
		return 0, false
	}
	return n, true
}
