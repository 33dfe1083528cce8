package schema_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

type (
	// Order asks for an item.
	Order struct {
		// Item is the name of the item.
		Item  string `json:"item"`
		Count int    `json:"count"` // at least 1
		// Note is for the seller */ only.
		//
		// It may be left out.
		Note  string `json:"note,omitempty"`
		State State  `json:"state"`
	}
	// State is the state of an order.
	State string

	ordered struct {
		ID string `json:"id"`
	}
	stockOf  = Page[stock]
	orderRef struct {
		ID string `json:"id"`
	}
	stock struct {
		Item  string  `json:"item"`
		Price float64 `json:"price"`
	}
	// Sold reports a sale.
	Sold struct {
		Item string   `json:"item"`
		By   *string  `json:"by"`
		Tags []string `json:"tags,omitempty"`
	}
	// Message has the name of a type of package ws.
	Message struct{ Text string }
)

// The states.
const (
	// Open orders can be canceled.
	Open State = "open"
	Done State = "done"
)

// newShop returns a manager with handlers, events and errors of all kinds.
func newShop(t testing.TB) *ws.Manager {
	t.Helper()
	m, err := ws.NewManager()
	require.NoError(t, err)
	require.NoError(t, ws.Handle(m, "shop.order", func(*ws.Client, *Order) (*ordered, error) { return nil, nil },
		ws.Doc("Orders an item.")))
	require.NoError(t, ws.Handle0(m, "shop.cancel", func(*ws.Client, *orderRef) error { return nil }))
	require.NoError(t, ws.HandleOnly(m, "shop.stock", func(*ws.Client) (*stockOf, error) { return nil, nil }))
	require.NoError(t, m.Register("shop.raw", func(*ws.Client, *ws.Message) error { return nil }))
	ws.DefineEvent[Sold](m, "shop.sold")
	ws.DefineEvent[[]Message](m, "shop.messages")
	ws.DefineError(m, 4290, "tooFast")
	ws.DefineError(m, 4100, "sold-out")
	return m
}
