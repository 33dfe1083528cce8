package inspect

import (
	"embed"
	"encoding/json"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"github.com/qi-realtime/ws"
)

//go:embed static
var static embed.FS

// Option changes the handler.
type Option func(*handler)

// AllowClose permits viewers to close clients. Without it, api/close answers 403.
func AllowClose() Option { return func(h *handler) { h.mayClose = true } }

// AllowHosts adds host names, without ports, under which the handler may be asked. Without it
// these are localhost, names below localhost, and IP addresses.
func AllowHosts(names ...string) Option {
	return func(h *handler) {
		for _, name := range names {
			h.hosts[strings.ToLower(name)] = true
		}
	}
}

// Metadata shows the value that fn returns for a client, encoded as JSON, when a viewer looks
// the client up. Metadata is not shown without it. fn must be safe for concurrent use.
func Metadata(fn func(*ws.Client) any) Option { return func(h *handler) { h.metadata = fn } }

// Handler returns a handler that shows the state of m: see the package comment. It has no
// authentication of its own. It starts no goroutine.
func Handler(m *ws.Manager, opts ...Option) http.Handler {
	h := &handler{manager: m, hosts: make(map[string]bool)}
	for _, opt := range opts {
		opt(h)
	}
	h.stats.compute, h.rooms.compute, h.clients.compute = h.takeStats, h.rankRooms, h.rankClients
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // the folder is embedded
	}
	h.mux.Handle("GET /", http.FileServerFS(files))
	h.mux.HandleFunc("GET /api/stats", h.serveStats)
	h.mux.HandleFunc("GET /api/figures", h.serveFigures)
	h.mux.HandleFunc("GET /api/history", h.serveHistory)
	h.mux.HandleFunc("GET /api/rooms", h.serveRooms)
	h.mux.HandleFunc("GET /api/clients", h.serveClients)
	h.mux.HandleFunc("GET /api/client", h.serveClient)
	h.mux.HandleFunc("POST /api/close", h.serveClose)
	return h
}

// handler is the page and its data. Safe for concurrent use.
type handler struct {
	// Immutable.
	manager  *ws.Manager
	hosts    map[string]bool
	mayClose bool
	metadata func(*ws.Client) any // nil shows none
	mux      http.ServeMux
	onStep   func() // for tests; called between two steps of a walk

	// Shared by all viewers.
	stats   shared[snapshot]
	rooms   shared[roomRanking]
	clients shared[clientRanking]
	history history
	search  sync.Mutex // held by the one search through all clients
}

// contentPolicy lets the page load its own files and ask its own server, and nothing else.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

// ServeHTTP answers one request of a viewer.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", contentPolicy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	switch {
	case !h.allowsHost(r.Host):
		fail(w, http.StatusMisdirectedRequest, "this host name is not allowed; see inspect.AllowHosts")
	case !ownPage(r):
		fail(w, http.StatusForbidden, "a page of another origin may not ask")
	default:
		h.mux.ServeHTTP(w, r)
	}
}

// allowsHost reports whether the handler may be asked under that name. A name that resolves
// to this machine may be an attacker's, whose page has the same origin then; an address is nobody's.
func (h *handler) allowsHost(hostport string) bool {
	host := hostport
	if name, _, err := net.SplitHostPort(hostport); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || h.hosts[host]
}

// ownPage reports whether the request comes from the page itself, from no page, or by a
// link to the page.
func ownPage(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" &&
		r.Header.Get("Sec-Fetch-Dest") == "document" && !strings.Contains(r.URL.Path, "/api/")
}

// reply writes v as JSON.
func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the viewer may have gone
}

// fail writes an error as JSON.
func fail(w http.ResponseWriter, status int, text string) {
	reply(w, status, map[string]string{"error": text})
}
