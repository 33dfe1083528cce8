package client_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/client"
)

func Example() {
	m, err := ws.NewManager()
	if err != nil {
		panic(err)
	}
	type greeting struct{ Name string }
	_ = ws.Handle(m, "greet", func(_ *ws.Client, g *greeting) (*string, error) {
		text := "hello, " + g.Name
		return &text, nil
	})
	ended := make(chan error, 1)
	go func() { ended <- m.Run() }()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = m.HandleUpgrade(w, r)
	}))

	ctx := context.Background()
	c, err := client.Dial(ctx, "ws"+strings.TrimPrefix(server.URL, "http"))
	if err != nil {
		panic(err)
	}
	text, err := client.Request[string](ctx, c, "greet", greeting{"Ann"})
	fmt.Println(text, err)
	err = c.Request(ctx, "no.such", nil, nil)
	fmt.Println(err)

	c.Close()
	<-c.Done()
	server.Close()
	_ = m.Shutdown(ctx)
	<-ended
	// Output:
	// hello, Ann <nil>
	// client: the server answers 404 handler not found
}
