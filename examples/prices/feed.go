package main

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/qi-realtime/ws"
)

// The rooms. Each gets every price; they differ in the prices that wait for a slow client.
const (
	roomConflate = "conflate" // a newer price replaces the one of its symbol
	roomTTL      = "ttl"      // a price is not sent after maxAge
	roomCatchUp  = "catchup"  // all prices, later, for as long as they are kept
	roomFeed     = "feed"     // reports on the feed, for the page's figures
)

const (
	maxAge         = time.Second
	window         = 10 * time.Second // of the history
	reportInterval = 250 * time.Millisecond
	spread         = 0.3 // the greatest distance from a symbol's first price, as a share
)

var symbols = []string{
	"ALDER", "BIRCH", "CEDAR", "CLOVE", "ELDER", "FERN", "GORSE", "HAZEL", "HEATH", "IVY",
	"LARCH", "LILAC", "MAPLE", "MYRTL", "OAK", "PINE", "ROWAN", "SORBS", "THYME", "WILLW",
}

type (
	// Price is a price of a symbol.
	Price struct {
		Symbol string  `json:"symbol"`
		Price  float64 `json:"price"`
		N      int     `json:"n"`  // counts the prices of the symbol
		At     int64   `json:"at"` // its time, in milliseconds of the server
	}
	// Report describes the feed.
	Report struct {
		Published int     `json:"published"` // prices up to now
		At        int64   `json:"at"`        // its time, in milliseconds of the server
		Prices    []Price `json:"prices"`    // the newest price of each symbol
	}
	// Link sets the rate of a page's links.
	Link struct {
		Link           string `json:"link"`
		BytesPerSecond int    `json:"bytes_per_second"` // 0 stops them
	}
	// Clock is the time of the server, in milliseconds.
	Clock struct {
		Now int64 `json:"now"`
	}
)

// feed publishes prices. Only links may be used by several goroutines.
type feed struct {
	price     ws.TypedEvent[Price]
	report    ws.TypedEvent[Report]
	links     links
	published int
	first     []float64
	last      []Price
}

// newFeed creates the rooms, and registers the handlers of the page. window is the time for which
// the history keeps a price.
func newFeed(m *ws.Manager, window time.Duration) (*feed, error) {
	f := &feed{
		price: ws.DefineEvent[Price](m, "price"), report: ws.DefineEvent[Report](m, "report"),
		links: links{conns: make(map[*slowConn]string)},
	}
	for _, symbol := range symbols {
		price := 20 + 180*rand.Float64()
		f.first = append(f.first, price)
		f.last = append(f.last, Price{Symbol: symbol, Price: price})
	}
	// The time bounds the history, so its size must not.
	history := ws.WithHistory(ws.History{TTL: window, Size: 1 << 16, Bytes: -1})
	for room, options := range map[string][]ws.RoomOption{
		roomConflate: nil, roomTTL: nil, roomFeed: nil, roomCatchUp: {history},
	} {
		if _, err := m.CreateRoom(room, nil, options...); err != nil {
			return nil, err
		}
	}
	return f, errors.Join(
		ws.HandleJoin(m, func(_ *ws.Client, room string) ([]ws.RoomOption, error) {
			if _, ok := m.GetRoom(room); !ok {
				return nil, ws.NewClientError(404, "no such room")
			}
			return nil, nil
		}),
		ws.Handle0(m, "link", func(_ *ws.Client, l *Link) error {
			if !validRate(l.BytesPerSecond) {
				return ws.NewClientError(400, "bytes_per_second is not valid")
			}
			f.links.set(l.Link, l.BytesPerSecond)
			return nil
		}, ws.Doc("Sets the rate of the links of this name.")),
		ws.HandleOnly(m, "clock", func(*ws.Client) (*Clock, error) {
			return &Clock{time.Now().UnixMilli()}, nil
		}),
	)
}

// publish publishes rate prices a second until ctx ends, and reports.
func (f *feed) publish(ctx context.Context, rate int) {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	start, reported := time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for due := int(now.Sub(start).Seconds() * float64(rate)); f.published < due; {
				f.log(ctx, f.publishNext(ctx))
			}
			if now.Sub(reported) >= reportInterval {
				reported = now
				report := Report{f.published, now.UnixMilli(), f.last}
				_, err := f.report.Publish(ctx, roomFeed, report, ws.ConflateKey("report"))
				f.log(ctx, err)
			}
		}
	}
}

// publishNext publishes a new price of some symbol to the three rooms.
func (f *feed) publishNext(ctx context.Context) error {
	i := rand.IntN(len(f.last))
	p := &f.last[i]
	p.Price = walk(p.Price, f.first[i])
	p.N++
	p.At = time.Now().UnixMilli()
	f.published++
	_, conflate := f.price.Publish(ctx, roomConflate, *p, ws.ConflateKey(p.Symbol))
	_, ttl := f.price.Publish(ctx, roomTTL, *p, ws.TTL(maxAge))
	_, catchUp := f.price.Publish(ctx, roomCatchUp, *p) // CatchUp is the policy of rooms with a history
	return errors.Join(conflate, ttl, catchUp)
}

// walk returns the price after one step of a random walk around first, rounded to a cent.
func walk(price, first float64) float64 {
	price *= 1 + (rand.Float64()-0.5)/100
	price = min(max(price, first*(1-spread)), first*(1+spread))
	return float64(int(price*100+0.5)) / 100
}

func (f *feed) log(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		slog.Warn("publish", "err", err)
	}
}
