package engine

import "time"

// marks measure the wait of the oldest frame of one lane, without a time for
// each frame. A mark is set at the tail of the lane of a blocked connection and
// holds the tick; the frames in front of it are at least as old. It is gone
// when the frame at its place has left. A frame that conflates another one
// keeps its place, and so its age.
//
// There are two marks, so that the age does not fall to 0 while frames wait
// long: the second is set when the first is old, and replaces it.
//
// Loop-confined: use only on the event loop that owns the connection.
type marks [2]mark

// mark is a place in a lane and the tick at which it was the last one.
type mark struct {
	end   uint32 // number of the frame behind the marked one; see fifo.popped
	since uint32 // tick
}

// in reports whether the marked frame is still in l.
func (m mark) in(l *fifo) bool { return int32(m.end-uint32(l.popped)) > 0 }

// tail marks the newest frame of l, which is not empty.
func tail(l *fifo, now uint32) mark { return mark{uint32(l.popped + l.len()), now} }

// tidy drops the first mark if its frame has left l.
func (ms *marks) tidy(l *fifo) {
	if !ms[0].in(l) {
		ms[0], ms[1] = ms[1], mark{}
	}
}

// note marks the tail of l if no frame of it is marked, or if the only mark is
// older than spacing.
func (ms *marks) note(l *fifo, now, spacing uint32) {
	if l.len() == 0 {
		return
	}
	ms.tidy(l)
	switch {
	case !ms[0].in(l):
		ms[0] = tail(l, now)
	case !ms[1].in(l) && now-ms[0].since >= spacing:
		ms[1] = tail(l, now)
	}
}

// age returns the least number of ticks that the oldest frame of l has waited.
func (ms *marks) age(l *fifo, now uint32) uint32 {
	ms.tidy(l)
	if !ms[0].in(l) {
		return 0
	}
	return now - ms[0].since
}

// removed adjusts the marks after the frame of that number has left from within
// the lane or its tail.
func (ms *marks) removed(number int) {
	for i := range ms {
		if int32(ms[i].end-uint32(number)) > 0 {
			ms[i].end--
		}
	}
}

// movedUp adjusts the marks after the frame of that number has left, and the
// frames in front of it have taken the next numbers.
func (ms *marks) movedUp(number int) {
	for i := range ms {
		if int32(ms[i].end-uint32(number)) <= 0 {
			ms[i].end++
		}
	}
}

// noteAges marks the lanes of a blocked connection. Marks of one lane are at
// least spacing ticks apart.
func (q *queue) noteAges(now, spacing uint32) {
	for lane := range q.marks {
		q.marks[lane].note(&q.lanes[lane], now, spacing)
	}
}

// noteBegun records the start of the wait of a partly sent frame, of frames
// that are compressed in order, or of sealed bytes. The connection has just
// become blocked.
func (q *queue) noteBegun(now uint32, sealed bool) {
	if q.begun == 0 && (sealed || q.current != nil || q.lanes[laneCommitted].len() > 0) {
		q.begun = max(now, 1)
	}
}

// age returns the least number of ticks that the oldest data frame has waited
// for the connection's socket.
func (q *queue) age(now uint32) (age uint32) {
	if q.begun != 0 {
		age = now - q.begun
	}
	for lane := range q.marks {
		age = max(age, q.marks[lane].age(&q.lanes[lane], now))
	}
	return age
}

// ageOf returns the age of c's oldest frame.
func (s *Shard) ageOf(c *Conn) time.Duration {
	if c.out == nil {
		return 0
	}
	return time.Duration(c.out.age(s.eng.now.Load())) * s.eng.tickTime
}

// checkAges marks the blocked connections as slow whose oldest frame has
// reached the high-water age, and records the greatest age.
func (s *Shard) checkAges() {
	var oldest time.Duration
	now := s.eng.now.Load()
	for _, c := range s.blocked.conns {
		if c.is(withheld) {
			continue // nothing is written to it yet
		}
		c.out.noteAges(now, s.eng.markSpacing)
		age := s.ageOf(c)
		oldest = max(oldest, age)
		if high := s.eng.cfg.HighWaterAge; high > 0 && age >= high && c.end() == nil {
			s.noteSlow(c)
		}
		s.checkStall(c)
	}
	s.stats.oldestWait.v.Store(uint64(oldest))
}

// stale reports whether a frame of c, a slow connection, has waited for a
// quarter of the high-water age. Marks are half of that age and a tick apart.
func (s *Shard) stale(c *Conn) bool {
	high := s.eng.cfg.HighWaterAge
	return high > 0 && s.ageOf(c) >= high/4
}
