//go:build !linux

package engine

import (
	"sync"
	"time"
)

// listenWatch is the portable fallback. It waits for a time only.
type listenWatch struct {
	timer  *time.Timer
	end    chan struct{}
	ending sync.Once
}

func newListenWatch() (*listenWatch, error) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &listenWatch{timer: timer, end: make(chan struct{})}, nil
}

func (w *listenWatch) add(int, int) error { return errNoReadiness }
func (w *listenWatch) arm(int, int) error { return errNoReadiness }
func (w *listenWatch) remove(int)         {}
func (w *listenWatch) close()             { w.ending.Do(func() { close(w.end) }) }

func (w *listenWatch) wakeAt(at time.Time) {
	if at.IsZero() {
		w.timer.Stop()
		return
	}
	w.timer.Reset(time.Until(at))
}

func (w *listenWatch) wait() (ready []int, ok bool) {
	select {
	case <-w.end:
		return nil, false
	case <-w.timer.C:
		return nil, true
	}
}

func readable(int) bool { return false }

// acceptSocket is not called where the loops' epolls are unknown.
func acceptSocket(int) (fd int, err error) { return -1, errNoReadiness }
