//go:build linux

package resume

import (
	"context"
	"math/bits"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/result"
)

const memoryName = "resume-memory"

func memoryTable() *result.Table {
	return &result.Table{
		Command: memoryName, Title: "Memory of histories without members",
		Columns: []result.Column{
			{"rooms", "rooms", "%d"},
			{"messages", "messages each", "%d"},
			{"size", "bytes", "%d"},
			{"formula_bytes", "formula MB", "%.1f"},
			{"history_bytes", "HistoryMemory MB", "%.1f"},
			{"heap_bytes", "heap growth MB", "%.1f"},
			{"rss_bytes", "RSS growth MB", "%.1f"},
			{"message_bytes", "heap B/message", "%.0f"},
		},
	}
}

// formula is the memory of a room with n messages of size bytes by docs/delivery.md: the encoded
// frame in the size that the allocator has for it, 88 bytes beside it, and a ring of 32 bytes for
// each place, whose length is a power of two.
func formula(n, size int) int {
	const envelope, frame, place = 110, 88, 32
	encoded := cap(append([]byte(nil), make([]byte, size+envelope)...))
	return n*(encoded+frame) + place<<bits.Len(uint(n-1))
}

// keep fills rooms that have no members.
func (o *run) keep(ctx context.Context, s *command.Session, t *result.Table) error {
	srv, err := s.Launch(ctx, 1, control.Config{Mode: control.History, HistorySize: o.missed})
	if err != nil {
		return err
	}
	defer srv.Stop()
	began, err := srv.Call(control.Command{Name: "settle"})
	if err != nil {
		return err
	}
	if _, err := srv.Call(control.Command{Name: "fill", Size: o.size, Rooms: o.rooms, Count: o.missed}); err != nil {
		return err
	}
	full, err := srv.Call(control.Command{Name: "settle"})
	if err != nil {
		return err
	}
	heap := float64(full.HeapAlloc) - float64(began.HeapAlloc)
	t.Add(o.rooms, o.missed, o.size, float64(o.rooms*formula(o.missed, o.size))/1e6, float64(full.HistoryMemory)/1e6,
		heap/1e6, (float64(full.RSS)-float64(began.RSS))/1e6, result.Ratio(heap, float64(o.rooms*o.missed)))
	return nil
}
