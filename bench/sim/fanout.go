//go:build linux

package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/qi-realtime/ws"
)

func largeRooms(kind int) string { return "large-" + strconv.Itoa(kind) }

// stall fills the queues of some clients whose peers do not read, and empties
// them again.
func (s *simulation) stall() error {
	n := 0
	for peer := 0; peer < s.Conns; peer += stalledShare {
		n++
		if err := s.clients[peer].JoinRoom("stalled"); err != nil {
			return err
		}
	}
	before, _ := s.settle()
	for peer := 0; peer < s.Conns; peer += stalledShare {
		s.net.Stall(peer)
	}
	s.net.Wait()
	queue := ws.DefaultConfig().MessageQueueSize
	count := s.counts()
	spent, err := s.cpu(func() error {
		for range queue {
			if err := s.manager.BroadcastToRoom("stalled", s.payload, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if got := s.manager.Stats().Total.Blocked; got != n {
		return fmt.Errorf("%d have stalled, not %d", got, n)
	}
	after, _ := s.settle()
	s.step.Stalled, s.step.HeapStalled = uint64(n), (after-before)/float64(n)
	s.step.StalledNanos = float64(spent) / float64(n*queue)
	for peer := 0; peer < s.Conns; peer += stalledShare {
		s.net.Resume(peer)
	}
	s.net.Wait()
	s.manager.DeleteRoom("stalled")
	return count(queue * n)
}

// counts returns a function that checks how many messages have arrived since.
func (s *simulation) counts() func(want int) error {
	before := s.net.Stats().Messages
	return func(want int) error {
		s.net.Wait()
		st := s.manager.Stats()
		s.step.Dropped = st.Total.Drops.Lost()
		got := s.net.Stats().Messages - before
		s.step.Deliveries += got
		if got != uint64(want) || s.step.Dropped > 0 {
			return fmt.Errorf("%d messages arrived, not %d, and %d were dropped", got, want, s.step.Dropped)
		}
		return nil
	}
}

// fanOut publishes to rooms in turn, outstanding messages before it waits for all
// to arrive, and returns the nanoseconds of CPU time for each delivery.
func (s *simulation) fanOut(publishes, outstanding, members int, name string, rooms int) (nanos float64, err error) {
	count := s.counts()
	ids := make([]string, rooms)
	for i := range ids {
		ids[i] = simRoom(name, i)
	}
	spent, err := s.cpu(func() error {
		for i := range publishes {
			if i%outstanding == 0 {
				s.net.Wait()
			}
			if err := s.manager.BroadcastToRoom(ids[i%rooms], s.payload, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return float64(spent) / float64(members), count(members)
}

// fanOutAll publishes to the room of all clients, which have joined in the order in
// which they connected, and once more after they have joined in a random order.
func (s *simulation) fanOutAll() (err error) {
	n := 3 * rounds(s.Conns)
	if s.step.OneNanos, err = s.fanOut(n, 1, n*s.Conns, everybody, 1); err != nil {
		return err
	}
	n = batch * max(1, least/batch/s.Conns)
	if s.step.BatchNanos, err = s.fanOut(n, batch, n*s.Conns, everybody, 1); err != nil {
		return err
	}
	if err := s.leaveAll(everybody, s.Conns); err != nil {
		return err
	}
	rand.Shuffle(s.Conns, func(i, j int) { s.clients[i], s.clients[j] = s.clients[j], s.clients[i] })
	if err := s.joinAll(everybody, s.Conns); err != nil {
		return err
	}
	s.net.Wait()
	n = 3 * rounds(s.Conns)
	s.step.ShuffledNanos, err = s.fanOut(n, 1, n*s.Conns, everybody, 1)
	return err
}

// fanOutMany publishes to all of many rooms: large ones, small ones of clients in random
// order, and small ones whose members share a loop, as with WithPlacement.
func (s *simulation) fanOutMany() (err error) {
	n := rounds(s.Conns)
	publish := func(name string, members int) (float64, error) {
		rooms := s.simRooms(members)
		return s.fanOut(n*rooms, n*rooms, n*s.Conns, name, rooms)
	}
	if s.Rooms > 1 {
		if s.step.LargeNanos, err = publish(largeRooms(0), largeRoom); err != nil {
			return err
		}
	}
	small := func(name string) (nanos float64, err error) {
		if err = s.joinAll(name, smallRoom); err != nil {
			return 0, err
		}
		s.net.Wait()
		if nanos, err = publish(name, smallRoom); err != nil {
			return 0, err
		}
		for i := range s.simRooms(smallRoom) {
			s.manager.DeleteRoom(simRoom(name, i))
		}
		s.net.Wait()
		return nanos, nil
	}
	if s.step.SmallNanos, err = small("small"); err != nil {
		return err
	}
	s.sortByLoop()
	s.step.PlacedNanos, err = small("placed")
	return err
}

// sortByLoop keeps the order of the clients of one loop.
func (s *simulation) sortByLoop() {
	loops := make(map[*ws.Client]int, s.Conns)
	for _, c := range s.clients {
		loops[c] = c.Info().Loop
	}
	slices.SortStableFunc(s.clients, func(a, b *ws.Client) int { return cmp.Compare(loops[a], loops[b]) })
}
