package engine

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// countDescriptors returns the number of descriptors of this process. Linux 6.2
// and later reports it; on older ones the result is the lowest free number,
// which is not larger.
func countDescriptors() int {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/fd", &st); err == nil && st.Size > 0 {
		return int(st.Size)
	}
	return nextDescriptor()
}

// openFileNr opens the machine's count of open files, or returns nil if there
// is none.
func openFileNr() *os.File {
	f, err := os.Open("/proc/sys/fs/file-nr")
	if err != nil {
		return nil
	}
	return f
}

// filesLeft returns the number of files that the machine can still open, less a
// reserve.
func filesLeft(f *os.File) int {
	if f == nil {
		return math.MaxInt32
	}
	var b [64]byte
	n, _ := f.ReadAt(b[:], 0)
	return parseFileNr(string(b[:n]))
}

func parseFileNr(s string) int {
	var open, unused, most uint64
	if n, _ := fmt.Sscan(s, &open, &unused, &most); n < 3 || most == 0 || most > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(most) - descriptorReserve(int(most)) - int(min(open, math.MaxInt32))
}
