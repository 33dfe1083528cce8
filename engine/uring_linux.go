package engine

import (
	"errors"
	"math"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The parts of the io_uring interface that uring uses; see io_uring(7).
const (
	opSendmsg = 9  // IORING_OP_SENDMSG
	opSend    = 26 // IORING_OP_SEND

	setupSubmitAll    = 1 << 7 // an entry that fails does not keep back those behind it
	featureSingleMmap = 1 << 0
	enterGetEvents    = 1 << 0

	offsetEntries = 0x10000000 // of the mmap of the submission entries
)

// uringParams is struct io_uring_params.
type uringParams struct {
	sqEntries, cqEntries, flags, threadCPU, threadIdle, features, wqFD uint32
	_                                                                  [3]uint32
	sq                                                                 struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// uringEntry is struct io_uring_sqe.
type uringEntry struct {
	opcode, flags uint8
	priority      uint16
	fd            int32
	offset        uint64
	addr          uint64
	len           uint32
	msgFlags      uint32
	userData      uint64
	_             [3]uint64
}

// uringResult is struct io_uring_cqe.
type uringResult struct {
	userData uint64
	res      int32
	flags    uint32
}

// uring sends to many sockets in one system call. It is a pair of rings of
// io_uring, used without a poller: each submission is complete when the call
// returns, because the sends neither wait nor go to the kernel's workers.
//
// Loop-confined: use only on the event loop that owns the connections.
type uring struct {
	fd      int
	ring    []byte // mmap of both rings
	mapped  []byte // mmap of entries
	entries []uringEntry
	results []uringResult
	sent    []int32 // of the last submission
	sqHead  *uint32
	sqTail  *uint32
	cqHead  *uint32
	cqTail  *uint32
	cqMask  uint32
}

// errNoUring reports a kernel without the features that uring needs.
var errNoUring = errors.New("ws: io_uring lacks a feature")

// newUring returns a ring for up to size sends in one call, a power of two.
func newUring(size uint32) (_ *uring, err error) {
	p := uringParams{flags: setupSubmitAll}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(size), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, errno
	}
	u := &uring{fd: int(fd)}
	defer func() {
		if err != nil {
			u.close()
		}
	}()
	if p.features&featureSingleMmap == 0 {
		return nil, errNoUring
	}
	length := max(int(p.sq.array+p.sqEntries*4), int(p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(uringResult{}))))
	if u.ring, err = u.mmap(0, length); err != nil {
		return nil, err
	}
	if u.mapped, err = u.mmap(offsetEntries, int(p.sqEntries)*int(unsafe.Sizeof(uringEntry{}))); err != nil {
		return nil, err
	}
	u.entries = unsafe.Slice((*uringEntry)(unsafe.Pointer(&u.mapped[0])), p.sqEntries)
	u.results = unsafe.Slice((*uringResult)(unsafe.Pointer(&u.ring[p.cq.cqes])), p.cqEntries)
	u.sqHead, u.sqTail = u.word(p.sq.head), u.word(p.sq.tail)
	u.cqHead, u.cqTail, u.cqMask = u.word(p.cq.head), u.word(p.cq.tail), *u.word(p.cq.mask)
	order := unsafe.Slice(u.word(p.sq.array), p.sqEntries) // of the entries, for ever
	for i := range order {
		order[i] = uint32(i)
	}
	u.sent = make([]int32, p.sqEntries)
	return u, u.probe()
}

func (u *uring) mmap(offset int64, length int) ([]byte, error) {
	return unix.Mmap(u.fd, offset, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
}

func (u *uring) word(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&u.ring[offset])) }

// prepare sets the i-th entry of the next submission: iov for the socket fd. head
// is scratch for an iov of several buffers. Both are borrowed until submit, and on
// the heap, because the kernel gets their addresses.
func (u *uring) prepare(i int, fd int32, iov []unix.Iovec, head *unix.Msghdr) {
	e := &u.entries[(*u.sqTail+uint32(i))&uint32(len(u.entries)-1)]
	*e = uringEntry{userData: uint64(i), fd: fd, msgFlags: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL}
	if len(iov) == 1 { // cheaper for the kernel
		e.opcode, e.addr, e.len = opSend, address(iov[0].Base), uint32(iov[0].Len)
		return
	}
	head.Iov, head.Iovlen = &iov[0], uint64(len(iov))
	e.opcode, e.addr, e.len = opSendmsg, address(head), 1
}

func address[T any](p *T) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }

// notSent is the result of an entry that the kernel did not take, for lack of
// memory.
const notSent = math.MinInt32

// submit sends the first n entries. It returns for each the number of sent bytes
// or the negative error number, borrowed until the next submission.
func (u *uring) submit(n int) []int32 {
	results := u.sent[:n]
	for i := range results {
		results[i] = notSent
	}
	tail := *u.sqTail + uint32(n)
	atomic.StoreUint32(u.sqTail, tail)
	u.enter(n, 0)
	head := atomic.LoadUint32(u.sqHead)
	taken := n - int(tail-head)
	atomic.StoreUint32(u.sqTail, head) // nothing else reads the ring now
	for seen := 0; seen < taken; {
		first, last := *u.cqHead, atomic.LoadUint32(u.cqTail)
		if first == last {
			u.enter(0, taken-seen)
			continue
		}
		for ; first != last; first++ {
			r := &u.results[first&u.cqMask]
			results[r.userData] = r.res
			seen++
		}
		atomic.StoreUint32(u.cqHead, first)
	}
	return results
}

// enter is the system call. It is a raw one for the same reason as in writev:
// maxBatch bounds its time to a few hundred microseconds.
func (u *uring) enter(submit, complete int) {
	flags := 0
	if complete > 0 {
		flags = enterGetEvents
	}
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER,
			uintptr(u.fd), uintptr(submit), uintptr(complete), uintptr(flags), 0, 0)
		if errno != unix.EINTR {
			return
		}
	}
}

// probe sends in both ways, and returns an error if that does not work here.
func (u *uring) probe() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _, _ = unix.Close(pair[0]), unix.Close(pair[1]) }()
	iov := []unix.Iovec{iovec([]byte{1}), iovec([]byte{2})}
	u.prepare(0, int32(pair[0]), iov[:1], nil)
	u.prepare(1, int32(pair[0]), iov, new(unix.Msghdr))
	for i, res := range u.submit(2) {
		if int(res) != i+1 {
			return errNoUring
		}
	}
	return nil
}

// close releases the rings.
func (u *uring) close() {
	if u.ring != nil {
		_ = unix.Munmap(u.ring)
	}
	if u.mapped != nil {
		_ = unix.Munmap(u.mapped)
	}
	_ = unix.Close(u.fd)
}
