package proxies_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/gin-contrib/gzip"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	chimiddleware "github.com/go-chi/chi/v5/middleware"
	"github.com/gorilla/handlers"
	"github.com/gorilla/mux"
	"github.com/klauspost/compress/gzhttp"
	"github.com/labstack/echo/v4"
	echomiddleware "github.com/labstack/echo/v4/middleware"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

// router puts the handler that upgrades behind a router and its middlewares.
type router func(upgrade http.HandlerFunc) http.Handler

// routers are those through which HandleUpgrade works.
var routers = map[string]router{
	"ServeMux with otelhttp": func(upgrade http.HandlerFunc) http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /ws", upgrade)
		return otelhttp.NewHandler(mux, "server")
	},
	"ServeMux with gzhttp": func(upgrade http.HandlerFunc) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("GET /ws", gzhttp.GzipHandler(upgrade))
		return mux
	},
	"chi": func(upgrade http.HandlerFunc) http.Handler {
		r := chi.NewRouter()
		format := &chimiddleware.DefaultLogFormatter{
			Logger: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo), NoColor: true,
		}
		r.Use(
			chimiddleware.RequestID,
			chimiddleware.RequestLogger(format),
			chimiddleware.Recoverer,
			chimiddleware.Compress(5),
			chimiddleware.Timeout(patience),
			otelhttp.NewMiddleware("server"),
		)
		r.Get("/ws", upgrade)
		return r
	},
	"gin": func(upgrade http.HandlerFunc) http.Handler {
		gin.SetMode(gin.ReleaseMode)
		r := gin.New()
		r.Use(
			gin.LoggerWithWriter(io.Discard),
			gin.RecoveryWithWriter(io.Discard),
			gzip.Gzip(gzip.DefaultCompression),
		)
		r.GET("/ws", func(c *gin.Context) { upgrade(c.Writer, c.Request) })
		return otelhttp.NewHandler(r, "server")
	},
	"echo": func(upgrade http.HandlerFunc) http.Handler {
		e := echo.New()
		e.Use(
			echomiddleware.RequestID(),
			echomiddleware.RequestLoggerWithConfig(echomiddleware.RequestLoggerConfig{
				LogStatus: true, LogResponseSize: true,
				LogValuesFunc: func(echo.Context, echomiddleware.RequestLoggerValues) error { return nil },
			}),
			echomiddleware.Recover(),
			echomiddleware.Gzip(),
			echomiddleware.ContextTimeout(patience),
			echo.WrapMiddleware(otelhttp.NewMiddleware("server")),
		)
		e.GET("/ws", func(c echo.Context) error {
			upgrade(c.Response(), c.Request())
			return nil
		})
		return e
	},
	"gorilla/mux": func(upgrade http.HandlerFunc) http.Handler {
		r := mux.NewRouter()
		r.Use(
			func(next http.Handler) http.Handler {
				return handlers.CombinedLoggingHandler(io.Discard, next)
			},
			handlers.RecoveryHandler(),
			handlers.CompressHandler,
			otelhttp.NewMiddleware("server"),
		)
		r.HandleFunc("/ws", upgrade)
		return r
	},
}

func TestRouters(t *testing.T) {
	for name, route := range routers {
		t.Run(name, func(t *testing.T) {
			b, errorLog := startBehind(t, route, func(err error) { assert.NoError(t, err) })
			to := target{host: b.addr}
			b.converse(t, func(t *testing.T) *client { return to.dial(t, nil) })
			b.web.Close()
			assert.Empty(t, errorLog.String())
		})
	}
}

// startBehind starts a backend behind a router. upgraded gets the error of each HandleUpgrade.
func startBehind(t *testing.T, route router, upgraded func(error)) (*backend, *lockedBuffer) {
	t.Helper()
	b := newBackend(t)
	errorLog := new(lockedBuffer)
	b.web = httptest.NewUnstartedServer(route(func(w http.ResponseWriter, r *http.Request) {
		upgraded(b.HandleUpgrade(w, r))
	}))
	b.web.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(errorLog, nil), slog.LevelError)
	b.web.Start()
	b.addr = b.web.Listener.Addr().String()
	return b, errorLog
}

// lockedBuffer is a buffer of text. Safe for concurrent use.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// unable are the middlewares behind which no connection can be upgraded.
var unable = map[string]router{
	"http.TimeoutHandler": func(upgrade http.HandlerFunc) http.Handler {
		return http.TimeoutHandler(upgrade, patience, "")
	},
	"echo's Timeout": func(upgrade http.HandlerFunc) http.Handler {
		e := echo.New()
		//nolint:staticcheck // deprecated, for reasons of its own, but in use
		e.Use(echomiddleware.TimeoutWithConfig(echomiddleware.TimeoutConfig{Timeout: patience}))
		e.GET("/ws", func(c echo.Context) error {
			upgrade(c.Response(), c.Request())
			return nil
		})
		return e
	},
	"a wrapper without Unwrap": func(upgrade http.HandlerFunc) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			upgrade(struct{ http.ResponseWriter }{w}, r)
		})
	},
}

// The client reads 500, and the server's log the reason.
func TestMiddlewaresThatCannot(t *testing.T) {
	for name, route := range unable {
		t.Run(name, func(t *testing.T) {
			errs := make(chan error, 1)
			b, _ := startBehind(t, route, func(err error) { errs <- err })
			_, err := target{host: b.addr}.tryDial(t, nil)
			var refused *refusal
			require.ErrorAs(t, err, &refused)
			assert.Equal(t, http.StatusInternalServerError, refused.status)
			err = receive(t, errs)
			require.ErrorIs(t, err, http.ErrNotSupported)
			assert.ErrorContains(t, err, "outside of http.TimeoutHandler and of middleware that wraps")
		})
	}
}

// fasthttp, and so fiber, wraps the connections that its adaptor hands over.
func TestFasthttp(t *testing.T) {
	b := newBackend(t)
	errs := make(chan error, 1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	upgrade := func(w http.ResponseWriter, r *http.Request) {
		// The adaptor uses its context again as soon as the connection is closed.
		errs <- b.HandleUpgrade(w, r.WithContext(context.Background()))
	}
	server := &fasthttp.Server{Handler: fasthttpadaptor.NewFastHTTPHandlerFunc(upgrade)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // until Shutdown
	_, err = target{host: listener.Addr().String()}.tryDial(t, nil)
	var refused *refusal
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, http.StatusNotImplemented, refused.status)
	require.ErrorContains(t, receive(t, errs), "not TCP or a Unix socket; the native path")
	require.NoError(t, server.Shutdown())
	require.NoError(t, receive(t, served))
}
