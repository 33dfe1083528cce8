package main

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// slowPipe returns a slow link named "a" in front of a peer that always has bytes to send.
func slowPipe(l *links, rate int) *slowConn {
	near, far := net.Pipe()
	c := l.add(near, "a", rate)
	go func() {
		_, _ = io.Copy(far, zeros{}) // ends with near
	}()
	return c
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// In a bubble of synctest time passes only while all goroutines wait, so times are exact.

// The tests of a link run in bubbles of synctest, where a sleep takes no time.
func TestLinkHasItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := slowPipe(&links{conns: make(map[*slowConn]string)}, 2000)
		defer c.Close()
		start := time.Now()
		_, err := io.ReadFull(c, make([]byte, 10_000))
		require.NoError(t, err)
		assert.InDelta(t, 5, time.Since(start).Seconds(), 0.11)
	})
}

func TestLinkStopsAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &links{conns: make(map[*slowConn]string)}
		c := slowPipe(l, 2000)
		defer c.Close()
		read := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			for buf := make([]byte, 64); ; {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				read += n
			}
		}()
		time.Sleep(time.Second) // of the bubble's clock, as below
		l.set("a", 0)
		synctest.Wait()
		stopped := read
		assert.InDelta(t, 2000, stopped, 201)
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Equal(t, stopped, read)

		l.set("b", maxRate) // another page
		l.set("a", 500)
		l.set("a", 1000)
		time.Sleep(time.Second) // of the bubble's clock, as below
		synctest.Wait()
		assert.InDelta(t, 1000, read-stopped, 101)

		require.NoError(t, c.Close())
		<-done
		assert.Empty(t, l.conns)
	})
}

func TestStoppedLinkCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := slowPipe(&links{conns: make(map[*slowConn]string)}, 0)
		time.AfterFunc(time.Minute, func() { _ = c.Close() })
		_, err := c.Read(make([]byte, 1))
		assert.ErrorIs(t, err, net.ErrClosed)
	})
}
