package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
)

// newBalancer gives each connection to the next node. It takes one away from a node that
// does not answer.
func newBalancer(c *cluster) http.Handler {
	dialer := new(net.Dialer)
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "a.node"
			r.Out.Host = r.In.Host // the node compares it with the page's origin
			r.SetXForwarded()
		},
		Transport: &http.Transport{
			DisableKeepAlives: true, // so that each connection has a node of its own
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				n := c.pick()
				if n == nil {
					return nil, errors.New("no node runs")
				}
				return dialer.DialContext(ctx, network, n.addr)
			},
		},
	}
}
