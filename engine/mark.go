package engine

import "time"

// marks measure how long the oldest frame of one lane has waited, without a time
// for each frame. A mark is set at the tail of the lane of a blocked connection
// and holds the tick; the frames in front of it are as old or older. It is gone
// when the frame at its place has left. A frame that conflates another
// keeps that one's place, and so its age.
//
// There are two, so that the age does not fall to 0 while frames wait for long:
// the second is set when the first is old, and follows it.
//
// Loop-confined: use only on the event loop that owns the connection.
type marks [2]mark

// mark is a place in a lane and when it was the last one.
type mark struct {
	end   uint32 // number of the frame behind the marked one, see fifo.popped
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

// age returns how many ticks the oldest frame of l has waited at least.
func (ms *marks) age(l *fifo, now uint32) uint32 {
	ms.tidy(l)
	if !ms[0].in(l) {
		return 0
	}
	return now - ms[0].since
}

// removed takes into account that the frame of that number has left from
// within the lane or at its tail.
func (ms *marks) removed(number int) {
	for i := range ms {
		if int32(ms[i].end-uint32(number)) > 0 {
			ms[i].end--
		}
	}
}

// movedUp takes into account that the frame of that number has left, and that the
// frames in front of it have taken the numbers behind their own.
func (ms *marks) movedUp(number int) {
	for i := range ms {
		if int32(ms[i].end-uint32(number)) <= 0 {
			ms[i].end++
		}
	}
}

// noteAges marks the lanes of a blocked connection. Marks of one lane are
// spacing ticks apart or more.
func (q *queue) noteAges(now, spacing uint32) {
	for lane := range q.marks {
		q.marks[lane].note(&q.lanes[lane], now, spacing)
	}
}

// noteBegun notes since when what the socket has begun to take waits for it:
// a frame half sent, frames that are compressed in their order, sealed bytes.
// The connection has just become blocked.
func (q *queue) noteBegun(now uint32, sealed bool) {
	if q.begun == 0 && (sealed || q.current != nil || q.lanes[laneCommitted].len() > 0) {
		q.begun = max(now, 1)
	}
}

// age returns how many ticks the oldest data frame has waited for the socket of
// the connection, at least.
func (q *queue) age(now uint32) (age uint32) {
	if q.begun != 0 {
		age = now - q.begun
	}
	for lane := range q.marks {
		age = max(age, q.marks[lane].age(&q.lanes[lane], now))
	}
	return age
}

// ageOf returns how long the oldest frame of c has waited for the socket.
func (s *Shard) ageOf(c *Conn) time.Duration {
	if c.out == nil {
		return 0
	}
	return time.Duration(c.out.age(s.eng.now.Load())) * s.eng.tickTime
}

// checkAges makes those blocked connections slow whose oldest frame waits
// longer than the high-water age, and notes the age of the oldest of all.
func (s *Shard) checkAges() {
	var oldest time.Duration
	now := s.eng.now.Load()
	for _, c := range s.laggards.conns {
		if c.is(withheld) {
			continue // its peer may not read yet
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

// stale reports whether a frame of c, a slow connection, has waited for a quarter
// of the high-water age: marks are half of it apart, and a tick.
func (s *Shard) stale(c *Conn) bool {
	high := s.eng.cfg.HighWaterAge
	return high > 0 && s.ageOf(c) >= high/4
}
