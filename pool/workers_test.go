package pool_test

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/pool"
)

type taskFunc func()

func (f taskFunc) Run() { f() }

// failOnPanic reports panics of tasks that must not panic.
func failOnPanic(t testing.TB) func(any) {
	return func(recovered any) { t.Errorf("task panicked: %v\n%s", recovered, debug.Stack()) }
}

func closeWorkers(t testing.TB, w *pool.Workers) {
	t.Helper()
	require.NoError(t, w.Close(context.Background()))
	workers, idle := w.Goroutines()
	assert.Zero(t, workers)
	assert.Zero(t, idle)
	assert.Zero(t, w.Running())
	assert.Zero(t, w.Waiting())
}

func TestNewWorkersPanics(t *testing.T) {
	for _, n := range []int{0, -1} {
		want := fmt.Sprintf("pool: NewWorkers with maxWorkers %d, want 1 or more", n)
		assert.PanicsWithValue(t, want, func() { pool.NewWorkers(n, nil) })
	}
}

func TestOneWorkerKeepsOrder(t *testing.T) {
	const n = 10_000
	w := pool.NewWorkers(1, failOnPanic(t))
	var got []int // one worker: no lock
	for i := range n {
		require.True(t, w.Submit(taskFunc(func() { got = append(got, i) })))
	}
	closeWorkers(t, w)
	assert.Len(t, got, n)
	assert.True(t, slices.IsSorted(got))
}

// A withdrawn task does not run and is not counted. The others keep their order.
func TestWithdraw(t *testing.T) {
	const n = 100
	w := pool.NewWorkers(1, failOnPanic(t))
	var got []int
	gate, started := make(chan struct{}), make(chan struct{})
	first, ok := w.SubmitTicket(taskFunc(func() { close(started); <-gate }))
	require.True(t, ok)
	<-started
	assert.False(t, w.Withdraw(first), "it runs")
	assert.False(t, w.Withdraw(0))
	for i := range n {
		ticket, ok := w.SubmitTicket(taskFunc(func() { got = append(got, i) }))
		require.True(t, ok)
		if i%3 != 1 {
			assert.True(t, w.Withdraw(ticket))
			assert.False(t, w.Withdraw(ticket), "twice")
		}
	}
	assert.Equal(t, n/3, w.Waiting())
	close(gate)
	closeWorkers(t, w)
	assert.Len(t, got, n/3)
	assert.True(t, slices.IsSorted(got))
}

// With many workers the tasks start in order, too: here each start allows the next one.
func TestStartsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := pool.NewWorkers(3, failOnPanic(t))
		var mu sync.Mutex
		var started []int
		release := make([]chan struct{}, 9)
		for i := range release {
			release[i] = make(chan struct{})
			w.Submit(taskFunc(func() {
				mu.Lock()
				started = append(started, i)
				mu.Unlock()
				<-release[i]
			}))
		}
		for i := range release {
			synctest.Wait()
			running := min(3, len(release)-i)
			assert.Equal(t, running, w.Running())
			assert.Equal(t, max(0, len(release)-3-i), w.Waiting())
			assert.Len(t, started, i+running)
			assert.Contains(t, started, min(i+2, len(release)-1), "the oldest that waited")
			close(release[i])
		}
		closeWorkers(t, w)
	})
}

func TestNeverMoreThanMax(t *testing.T) {
	for _, maxWorkers := range []int{1, 2, 7, 100} {
		t.Run(fmt.Sprint("max=", maxWorkers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := pool.NewWorkers(maxWorkers, failOnPanic(t))
				gate := make(chan struct{})
				for range 300 {
					w.Submit(taskFunc(func() { <-gate }))
				}
				synctest.Wait()
				workers, idle := w.Goroutines()
				assert.Equal(t, maxWorkers, workers, "and no fewer, while tasks wait")
				assert.Zero(t, idle)
				assert.Equal(t, maxWorkers, w.Running())
				assert.Equal(t, 300-maxWorkers, w.Waiting())

				close(gate)
				synctest.Wait()
				assert.Zero(t, w.Running())
				workers, idle = w.Goroutines()
				assert.Equal(t, idle, workers, "all others ended")
				assert.LessOrEqual(t, idle, min(maxWorkers, 2*runtime.GOMAXPROCS(0)))
				assert.Positive(t, idle, "some stay")
				closeWorkers(t, w)
			})
		})
	}
}

// Idle workers take the next tasks at once, not one after the other.
func TestIdleWorkersWakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := pool.NewWorkers(4, failOnPanic(t))
		for range 5 {
			gate := make(chan struct{})
			for range 4 {
				w.Submit(taskFunc(func() { <-gate }))
			}
			synctest.Wait()
			assert.Equal(t, 4, w.Running())
			close(gate)
			synctest.Wait()
		}
		closeWorkers(t, w)
	})
}

func TestBurst(t *testing.T) {
	const producers, each = 4, 25_000
	w := pool.NewWorkers(8, failOnPanic(t))
	var ran, running, most atomic.Int64
	task := taskFunc(func() {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		ran.Add(1)
		running.Add(-1)
	})
	var wg sync.WaitGroup
	for range producers {
		wg.Go(func() {
			for range each {
				assert.True(t, w.Submit(task))
			}
		})
	}
	wg.Wait()
	closeWorkers(t, w)
	assert.Equal(t, int64(producers*each), ran.Load())
	assert.LessOrEqual(t, most.Load(), int64(8))
}

func TestTaskSubmitsTask(t *testing.T) {
	w := pool.NewWorkers(1, failOnPanic(t))
	var ran atomic.Int32
	done := make(chan struct{})
	var task taskFunc
	task = func() {
		if ran.Add(1) == 100 {
			close(done)
			return
		}
		w.Submit(task)
	}
	w.Submit(task)
	<-done
	closeWorkers(t, w)
}

func TestPanicSurvives(t *testing.T) {
	var recovered []any // one worker: no lock
	var stacks []string
	var w *pool.Workers
	w = pool.NewWorkers(1, func(r any) {
		recovered = append(recovered, r)
		stacks = append(stacks, string(debug.Stack()))
		assert.Equal(t, 1, w.Running(), "onPanic may call Workers")
	})
	ran := 0
	for i := range 10 {
		w.Submit(taskFunc(func() {
			ran++
			if i%2 == 0 {
				panic(i)
			}
		}))
	}
	closeWorkers(t, w)
	assert.Equal(t, 10, ran)
	assert.Equal(t, []any{0, 2, 4, 6, 8}, recovered)
	for _, stack := range stacks {
		assert.Contains(t, stack, "TestPanicSurvives", "the stack of the task")
	}
}

// A task that ends its goroutine, as t.FailNow does, costs one worker and no task.
func TestGoexitSurvives(t *testing.T) {
	for _, maxWorkers := range []int{1, 3} {
		w := pool.NewWorkers(maxWorkers, failOnPanic(t))
		var ran atomic.Int32
		for range 20 {
			w.Submit(taskFunc(func() {
				ran.Add(1)
				runtime.Goexit()
			}))
		}
		closeWorkers(t, w)
		assert.Equal(t, int32(20), ran.Load())
	}
}

func TestCloseWithoutTasks(t *testing.T) {
	w := pool.NewWorkers(2, nil)
	closeWorkers(t, w)
	closeWorkers(t, w)
	assert.False(t, w.Submit(taskFunc(func() { t.Error("ran after Close") })))
}

func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := pool.NewWorkers(2, failOnPanic(t))
		gate := make(chan struct{})
		var ran atomic.Int32
		for range 5 {
			w.Submit(taskFunc(func() {
				<-gate
				ran.Add(1)
			}))
		}
		var closed atomic.Int32
		for range 3 {
			go func() { // owner: the test, which waits below
				assert.NoError(t, w.Close(context.Background()))
				closed.Add(1)
			}()
		}
		synctest.Wait()
		assert.Zero(t, closed.Load())
		assert.False(t, w.Submit(taskFunc(func() { t.Error("ran after Close") })))
		assert.Equal(t, 2, w.Running())
		assert.Equal(t, 3, w.Waiting())

		close(gate)
		synctest.Wait()
		assert.Equal(t, int32(3), closed.Load())
		assert.Equal(t, int32(5), ran.Load(), "those that waited ran too")
	})
}

func TestCloseContextEndsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := pool.NewWorkers(1, failOnPanic(t))
		gate := make(chan struct{})
		var ran atomic.Int32
		for range 3 {
			w.Submit(taskFunc(func() {
				<-gate
				ran.Add(1)
			}))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, w.Close(ctx), context.Canceled)
		require.ErrorIs(t, w.Close(ctx), context.Canceled)
		close(gate)
		closeWorkers(t, w)
		assert.Equal(t, int32(3), ran.Load(), "the tasks run all the same")
		assert.NoError(t, w.Close(ctx), "an ended pool is closed whatever ctx says")
	})
}

// Submit and Close race: a task that Submit accepted has run when Close returns.
func TestSubmitAgainstClose(t *testing.T) {
	for range 200 {
		w := pool.NewWorkers(2, failOnPanic(t))
		var accepted, ran atomic.Int32
		task := taskFunc(func() { ran.Add(1) })
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for range 500 {
					if !w.Submit(task) {
						return
					}
					accepted.Add(1)
				}
			})
		}
		runtime.Gosched()
		assert.NoError(t, w.Close(context.Background()))
		atClose := ran.Load()
		wg.Wait()
		assert.Equal(t, accepted.Load(), atClose)
	}
}

func BenchmarkSubmit(b *testing.B) {
	for _, maxWorkers := range []int{1, 64} {
		b.Run(fmt.Sprintf("max=%d/work=none", maxWorkers), func(b *testing.B) {
			w := pool.NewWorkers(maxWorkers, failOnPanic(b))
			task := taskFunc(func() {})
			b.ReportAllocs()
			for b.Loop() {
				w.Submit(task)
			}
			closeWorkers(b, w)
		})
	}
}

// One task at a time runs on idle workers: the cost of a wake-up and back.
func BenchmarkRoundTrip(b *testing.B) {
	w := pool.NewWorkers(8, failOnPanic(b))
	done := make(chan struct{})
	task := taskFunc(func() { done <- struct{}{} })
	b.ReportAllocs()
	for b.Loop() {
		w.Submit(task)
		<-done
	}
	closeWorkers(b, w)
}

// Loops submit at the same time: each submits batches and waits until they have run. The cost
// of a task must not grow with their number.
func BenchmarkSubmitters(b *testing.B) {
	const batch = 16
	for _, submitters := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprintf("submitters=%d", submitters), func(b *testing.B) {
			w := pool.NewWorkers(512, failOnPanic(b))
			b.ReportAllocs()
			began := cpuTime()
			var submitting sync.WaitGroup
			for range submitters {
				submitting.Go(func() {
					var done sync.WaitGroup
					task := taskFunc(done.Done)
					for range b.N / submitters / batch {
						done.Add(batch)
						for range batch {
							w.Submit(task)
						}
						done.Wait()
					}
				})
			}
			submitting.Wait()
			b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
			closeWorkers(b, w)
		})
	}
}

// cpuTime returns the CPU time of the process.
func cpuTime() time.Duration {
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
