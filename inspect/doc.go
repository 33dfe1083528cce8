// Package inspect serves a page and JSON that show the present state of a ws.Manager: its
// event loops, its largest and busiest rooms, its slowest clients, messages that were dropped and
// requests that were refused, by reason. It finds a client, and closes it where AllowClose
// permits that.
//
//	go http.ListenAndServe("127.0.0.1:6060", inspect.Handler(m))
//
// The handler has no authentication of its own, and it shows the IDs, users and addresses of
// clients. Serve it on a private port, or behind middleware that authenticates. It answers
// requests to loopback names, IP addresses and the names of AllowHosts only, so that a page in a
// browser cannot reach it through a name of its own (DNS rebinding), and it has no headers for
// other origins. To mount it below a path, strip the prefix:
//
//	mux.Handle("/inspect/", http.StripPrefix("/inspect", inspect.Handler(m)))
//
// Nothing here runs on an event loop: a walk through all clients or rooms reads atomic counters
// and short locks from the goroutine of a request, in small steps, and all viewers share its
// result for a second.
//
// # JSON
//
// Names of fields are stable; more may come. Times are Unix times in milliseconds, in fields that
// end in _at or are called at; durations are in milliseconds too, and end in _ms. An error is
// {"error": "its text"} with a status of 400 or more.
//
// GET api/stats is a snapshot, at most a second old:
//
//	{"at": 1764223561123,
//	 "may_close": false,
//	 "drain": {"phase": "none", "total": 0, "moved": 0, "closed": 0, "forced": 0, "left": 0,
//	           "remaining": 0, "clients_per_second": 0},
//	 "manager": {"clients": 2, "rooms": 1, "refused_total": {"auth": 0, ...}, ...},
//	 "loops": [{"connections": 1, "inbox_len": 0, "drops_total": {"full": 0, ...}, ...}, ...]}
//
// drain is ws.DrainStats: phase is none, grace, slots or done.
//
// The names in manager and loops are those of ws.Stats.Figures, without the prefix loop_; figures
// with a reason are objects with a field for each reason.
//
// GET api/figures describes these names:
//
//	{"clients": {"help": "connected clients", "counter": false}, "loop_connections": {...}, ...}
//
// GET api/history?after=0 is the values of the counters in the last five minutes, later than
// after. A point is recorded when somebody asks, so there are gaps while nobody does:
//
//	{"series": [{"name": "messages_in_total"}, {"name": "drops_total", "reason": "full"}, ...],
//	 "points": [[1764223560123, 17, 0, ...], [1764223561123, 19, 0, ...]]}
//
// A point is its time and a value for each series. Values of loops are summed.
//
// GET api/rooms?by=members&n=20 is the rooms with the most members; by=traffic orders them by
// deliveries, the messages published a second times the members. n is at most 100:
//
//	{"at": 1764223561123, "total": 1,
//	 "rooms": [{"id": "lobby", "members": 2, "messages_per_second": 1.5, "deliveries_per_second": 3,
//	            "lost": 0, "conflated": 0}]}
//
// GET api/clients?by=queued&n=20 is the clients with the most bytes that wait to be sent;
// by=round_trip orders them by the time that they took to answer the last ping. Clients with a
// zero are left out:
//
//	{"at": 1764223561123, "total": 2,
//	 "clients": [{"id": "G3b...", "user": "7", "address": "192.0.2.1:5000", "loop": 0,
//	              "connected_at": 1764223000000, "path": "/ws", "tls": true, "subprotocol": "",
//	              "compression": true, "context_takeover": false, "round_trip_ms": 20.5,
//	              "queued_bytes": 4096, "queued_messages": 4, "blocked": true, "unhandled": 0,
//	              "rooms": 1, "closing": false}]}
//
// round_trip_ms is 0 before the first answer to a ping. connected_at is exact to a hundredth
// of the time since. path is "" for a client of HandleUpgrade.
//
// GET api/client?id=G3b... is one client; user=7 is the devices of a user, and address=192.0.2.1
// or address=192.0.2.1:5000 is the clients of an address. At most 100 come; truncated says
// whether there are more. They have two more fields: room_ids, at most 1,000 of them, and metadata
// with the Metadata option:
//
//	{"clients": [{"id": "G3b...", ..., "room_ids": ["lobby"], "metadata": {...}}], "truncated": false}
//
// POST api/close closes a client. It needs AllowClose, a Content-Type of application/json and the
// header X-Inspect: close, which a page of another origin cannot send:
//
//	{"id": "G3b...", "code": 1000, "reason": "closed by an operator"}
//
// code is 1000 if it is missing. The answer is {"closed": true}.
package inspect
