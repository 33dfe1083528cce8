package engine

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// testUring returns a ring. It skips the test where the kernel lacks or forbids
// io_uring, and fails it where neither is so.
func testUring(t *testing.T, size uint32) *uring {
	u, err := newUring(size)
	if err == nil {
		t.Cleanup(u.close)
		return u
	}
	disabled, _ := os.ReadFile("/proc/sys/kernel/io_uring_disabled")
	status, _ := os.ReadFile("/proc/self/status")
	filtered := strings.Contains(string(status), "Seccomp:\t2")
	if errors.Is(err, unix.ENOSYS) || (len(disabled) > 0 && disabled[0] != '0') || filtered {
		t.Skip("this kernel lacks or forbids io_uring: ", err)
	}
	require.NoError(t, err)
	return nil
}

// RequireBatchedWrites skips the test without batched writes; see testUring.
func RequireBatchedWrites(t *testing.T) {
	if os.Getenv("WS_BATCHED_WRITES") == "off" {
		t.Skip("WS_BATCHED_WRITES=off")
	}
	testUring(t, 8)
}

// BreakRing makes every submission of s fail, as one does for lack of memory.
// It runs on the loop of s.
func BreakRing(s *Shard) {
	_ = unix.Close(s.batch.ring.fd)
	s.batch.ring.fd = -1
}

func socketpair(t *testing.T) (end, other int) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = unix.Close(pair[0]), unix.Close(pair[1]) })
	return pair[0], pair[1]
}

// TestUring asserts that each entry of a submission gets its own result, although
// the entries before it fail, and that the ring can be used again.
func TestUring(t *testing.T) {
	u := testUring(t, 8)
	flags, err := unix.FcntlInt(uintptr(u.fd), unix.F_GETFD, 0)
	require.NoError(t, err)
	assert.Equal(t, unix.FD_CLOEXEC, flags, "a child process would inherit the ring")

	one, readOne := socketpair(t)
	two, readTwo := socketpair(t)
	broken, peer := socketpair(t)
	require.NoError(t, unix.Close(peer))
	full, _ := socketpair(t)
	for err = nil; err == nil; {
		_, err = unix.Write(full, make([]byte, 4<<10))
	}
	large, _ := socketpair(t)
	for range 3 * len(u.entries) {
		u.prepare(0, int32(broken), []unix.Iovec{iovec([]byte("a"))}, nil)
		u.prepare(1, int32(full), []unix.Iovec{iovec([]byte("b"))}, nil)
		u.prepare(2, int32(one), []unix.Iovec{iovec([]byte("one"))}, nil)
		u.prepare(3, 1<<20, []unix.Iovec{iovec([]byte("no descriptor"))}, nil)
		u.prepare(4, int32(two), []unix.Iovec{iovec([]byte("tw")), iovec([]byte("o"))}, new(unix.Msghdr))
		got := u.submit(5)
		assert.Equal(t, []int32{-int32(unix.EPIPE), -int32(unix.EAGAIN), 3, -int32(unix.EBADF), 3}, got)
		for fd, want := range map[int]string{readOne: "one", readTwo: "two"} {
			b := make([]byte, 10)
			n, err := unix.Read(fd, b)
			require.NoError(t, err)
			assert.Equal(t, want, string(b[:n]))
		}
	}
	u.prepare(0, int32(large), []unix.Iovec{iovec(bytes.Repeat([]byte("x"), 16<<20))}, nil)
	sent := u.submit(1)[0]
	assert.Positive(t, sent)
	assert.Less(t, sent, int32(16<<20))
}

// TestUringThatFails asserts that entries which the kernel does not take are
// reported as not sent.
func TestUringThatFails(t *testing.T) {
	u := testUring(t, 8)
	fd, other := socketpair(t)
	saved := u.fd
	u.fd = fd // not a ring
	for range 20 {
		u.prepare(0, int32(fd), []unix.Iovec{iovec([]byte("a"))}, nil)
		u.prepare(1, int32(fd), []unix.Iovec{iovec([]byte("b"))}, nil)
		assert.Equal(t, []int32{notSent, notSent}, u.submit(2))
	}
	u.fd = saved
	u.prepare(0, int32(fd), []unix.Iovec{iovec([]byte("c"))}, nil)
	assert.Equal(t, []int32{1}, u.submit(1))
	b := make([]byte, 10)
	n, err := unix.Read(other, b)
	require.NoError(t, err)
	assert.Equal(t, "c", string(b[:n]))
}
