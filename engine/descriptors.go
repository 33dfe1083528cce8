package engine

import (
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// descriptorUsage measures the free descriptors of this process, under
// RLIMIT_NOFILE, and of the machine, under fs.file-max. It looks again when the
// free ones could have been used up since the last look.
//
// Not safe for concurrent use.
type descriptorUsage struct {
	fixed   int      // limit in place of RLIMIT_NOFILE less a reserve; 0 is none
	fileNr  *os.File // /proc/sys/fs/file-nr, or nil
	used    int      // descriptors of this process, at the last look
	limit   int      // descriptors at which connections wait
	left    int      // the smaller number of free ones, at the last look
	granted int      // permits given since, and those not used yet
	looked  time.Time
}

// perDescriptor is the shortest time in which a descriptor can be used up.
const perDescriptor = time.Microsecond

// maxUsageAge bounds the age of a look.
const maxUsageAge = 10 * time.Millisecond

// open prepares for the looks.
func (u *descriptorUsage) open() { u.fileNr = openFileNr() }

func (u *descriptorUsage) close() {
	if u.fileNr != nil {
		_ = u.fileNr.Close()
		u.fileNr = nil
	}
}

// short reports whether no descriptor is left for one more connection. armed is
// the number of granted connections that are not accepted yet.
func (u *descriptorUsage) short(now time.Time, armed int) bool {
	left := u.left - u.granted
	if age := now.Sub(u.looked); left <= 0 || age > min(time.Duration(left)*perDescriptor, maxUsageAge) {
		u.look(now, armed)
	}
	return u.left-u.granted <= 0
}

// exhausted is short for connections that are granted already.
func (u *descriptorUsage) exhausted(now time.Time, armed int) bool {
	u.short(now, armed)
	return u.left-u.granted+armed <= 0
}

// interval returns the time between two looks at the descriptors while
// connections are about to be accepted.
func (u *descriptorUsage) interval() time.Duration {
	return min(max(time.Duration(u.left)*5*perDescriptor, time.Millisecond), 50*time.Millisecond)
}

func (u *descriptorUsage) look(now time.Time, armed int) {
	u.looked, u.granted = now, armed
	u.used, u.limit = countDescriptors(), u.fixed
	if u.limit == 0 {
		u.limit = descriptorLimit()
	}
	u.left = min(u.limit-u.used, filesLeft(u.fileNr))
}

// descriptorLimit returns RLIMIT_NOFILE less a reserve for the application.
// gnet ends all loops when accept finds no descriptor, so they must never run
// out.
func descriptorLimit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1 << 20
	}
	n := int(min(limit.Cur, 1<<30))
	return n - descriptorReserve(n)
}

// descriptorReserve returns the reserve of a limit: 2 %, between 64 and 1,024,
// but at most a quarter.
func descriptorReserve(limit int) int { return min(max(limit/50, 64), 1024, limit/4) }

// nextDescriptor returns the number of the next descriptor, which is the lowest
// free one, or a very large number if there is none.
func nextDescriptor() int {
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return math.MaxInt32
	}
	_ = unix.Close(fd)
	return fd
}
