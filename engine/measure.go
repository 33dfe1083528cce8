package engine

import (
	"time"

	"github.com/qi-realtime/ws/internal/measure"
)

// measureState is the part of a Shard that takes times.
//
// Loop-confined: use only on the event loop that owns the connections.
type measureState struct {
	sampler        measure.Sampler
	handshakes     map[*Conn]time.Time // start of each handshake in progress; nil before the first
	mostHandshakes int                 // most entries that the map had
	flushTasks     []flushTask         // in the order of their marks
}

// SampleInLoop decides whether the time of an event that begins now is taken.
func (s *Shard) SampleInLoop() measure.Sample { return s.sampler.Begin(s.presence.seen) }

// SamplePublish decides whether the time of a publication that begins now is taken. Safe for
// concurrent use.
func (e *Engine) SamplePublish() measure.Sample { return e.publishes.Begin(e.now.Load()) }

// NoteMailboxWait counts the end of a message's wait for a worker, and returns a sample that
// begins now. Safe for concurrent use.
func (s *Shard) NoteMailboxWait(m measure.Sample) measure.Sample { return s.stats.mailboxWait.Note(m) }

// NotePublished counts a publication that is written. Safe for concurrent use.
func (s *Shard) NotePublished(m measure.Sample) { s.stats.publish.Note(m) }

// flushTask is a task that runs when the connections in front of a mark have been flushed.
type flushTask struct {
	task Task
	mark uint64 // number of connections that have left the dirty list by then
}

// AfterFlushInLoop runs t when the frames that are queued now have been written. It does not
// wait for blocked connections, nor for the rest of a queue of more than maxFlushBytes. t is
// dropped if the loop ends before.
func (s *Shard) AfterFlushInLoop(t Task) {
	if s.dirty.empty() {
		s.runTask(t)
		return
	}
	s.flushTasks = append(s.flushTasks, flushTask{t, s.dirty.left + uint64(s.dirty.len())})
}

// runFlushTasks runs the tasks whose connections have been flushed.
func (s *Shard) runFlushTasks() {
	n := 0
	for n < len(s.flushTasks) && s.flushTasks[n].mark <= s.dirty.left {
		s.runTask(s.flushTasks[n].task)
		n++
	}
	if n > 0 {
		rest := copy(s.flushTasks, s.flushTasks[n:])
		clear(s.flushTasks[rest:])
		s.flushTasks = s.flushTasks[:rest]
	}
}

// keptHandshakes is the number of entries up to which the map of handshakes is kept: a map does
// not shrink after a storm.
const keptHandshakes = 1024

// beginHandshake records the start of c's handshake.
func (s *Shard) beginHandshake(c *Conn) {
	if s.handshakes == nil {
		s.handshakes = make(map[*Conn]time.Time)
	}
	s.handshakes[c] = s.eng.cfg.Now()
	s.mostHandshakes = max(s.mostHandshakes, len(s.handshakes))
}

// endHandshake forgets the start of c's handshake, and returns it.
func (s *Shard) endHandshake(c *Conn) (began time.Time) {
	began = s.handshakes[c]
	delete(s.handshakes, c)
	if len(s.handshakes) == 0 && s.mostHandshakes > keptHandshakes {
		s.handshakes, s.mostHandshakes = nil, 0
	}
	return began
}

// noteHandshake counts a handshake that is answered.
func (s *Shard) noteHandshake(began time.Time) {
	if !began.IsZero() {
		s.stats.handshake.Observe(s.eng.cfg.Now().Sub(began), 1)
	}
}
