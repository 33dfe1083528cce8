package wstest_test

import (
	"testing"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/wstest"
)

func TestHubIsBroker(t *testing.T) {
	hub := wstest.NewHub()
	wstest.TestBroker(t, func(*testing.T) ws.Broker { return hub.Link() })
}
