// Package doctor says how many connections the limits of a machine allow, and
// how to raise them. It only calculates with the files below /proc and /sys.
package doctor

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Unknown stands for a number that the kernel does not show here, such as the
// host's own settings inside a container.
const Unknown = -1

// Process holds the settings of a process.
type Process struct {
	MaxProcs    int   // GOMAXPROCS
	MemoryLimit int64 // GOMEMLIMIT; math.MaxInt64 is none
	GCPercent   int   // GOGC; negative is off
	PageSize    int64
}

// Facts are the limits of one process on one machine. Those that are not
// visible are Unknown.
type Facts struct {
	Process
	Soft, Hard                        int64 // RLIMIT_NOFILE; math.MaxInt64 is unlimited
	NrOpen, FileMax, FilesOpen        int64
	Somaxconn, SynBacklog, Syncookies int64
	Ports                             [2]int64 // net.ipv4.ip_local_port_range
	TCPMem                            [3]int64 // in pages
	ReadBuffer, WriteBuffer           [3]int64 // tcp_rmem and tcp_wmem, in bytes
	Conntrack, ConntrackUsed          int64    // Unknown without the module
	MemTotal, MemAvailable            int64    // in bytes
	CPUs                              int
	Cgroup                            int     // version, 0 if none was found
	CgroupMemory                      int64   // bytes; math.MaxInt64 is no limit
	CgroupCPU                         float64 // processors; 0 is no quota
	SocketBytes                       int64   // kernel memory of an idle connection, if measured; else 0
}

// Read reads the limits below root, which is / but for tests.
func Read(root string, p Process) (*Facts, error) {
	t := tree(root)
	f := &Facts{
		Process: p,
		NrOpen:  t.number("proc/sys/fs/nr_open"), FileMax: t.number("proc/sys/fs/file-max"),
		FilesOpen: t.numbers("proc/sys/fs/file-nr", 1)[0],
		Somaxconn: t.number("proc/sys/net/core/somaxconn"), SynBacklog: t.number("proc/sys/net/ipv4/tcp_max_syn_backlog"),
		Syncookies:    t.number("proc/sys/net/ipv4/tcp_syncookies"),
		Ports:         [2]int64(t.numbers("proc/sys/net/ipv4/ip_local_port_range", 2)),
		TCPMem:        [3]int64(t.numbers("proc/sys/net/ipv4/tcp_mem", 3)),
		ReadBuffer:    [3]int64(t.numbers("proc/sys/net/ipv4/tcp_rmem", 3)),
		WriteBuffer:   [3]int64(t.numbers("proc/sys/net/ipv4/tcp_wmem", 3)),
		Conntrack:     t.number("proc/sys/net/netfilter/nf_conntrack_max"),
		ConntrackUsed: t.number("proc/sys/net/netfilter/nf_conntrack_count"),
		MemTotal:      t.memory("MemTotal:"), MemAvailable: t.memory("MemAvailable:"),
		CPUs: t.cpus(),
	}
	var err error
	if f.Soft, f.Hard, err = t.descriptors(); err != nil {
		return nil, err
	}
	f.Cgroup, f.CgroupMemory, f.CgroupCPU = t.cgroup()
	return f, nil
}

// tree is the directory that stands for /.
type tree string

func (t tree) read(path string) string {
	b, err := os.ReadFile(filepath.Join(string(t), path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// numbers reads the first n numbers of a file; all are Unknown if one is not
// there.
func (t tree) numbers(path string, n int) []int64 {
	values := make([]int64, n)
	words := strings.Fields(t.read(path))
	for i := range values {
		values[i] = Unknown
		if len(words) >= n {
			values[i] = parse(words[i])
		}
	}
	return values
}

func (t tree) number(path string) int64 { return t.numbers(path, 1)[0] }

// parse reads a number. Other words are Unknown, and a number that is too large, or
// a word for no limit, is math.MaxInt64.
func parse(word string) int64 {
	if word == "unlimited" || word == "max" {
		return math.MaxInt64
	}
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		return Unknown
	}
	return int64(min(n, math.MaxInt64))
}

// memory reads a line of /proc/meminfo, in bytes.
func (t tree) memory(key string) int64 {
	for line := range strings.Lines(t.read("proc/meminfo")) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == key {
			return parse(words[1]) << 10
		}
	}
	return Unknown
}

// descriptors reads RLIMIT_NOFILE.
func (t tree) descriptors() (soft, hard int64, err error) {
	for line := range strings.Lines(t.read("proc/self/limits")) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			if words := strings.Fields(rest); len(words) >= 2 {
				return parse(words[0]), parse(words[1]), nil
			}
		}
	}
	return 0, 0, fmt.Errorf("doctor: no descriptor limit in %s: is /proc mounted?",
		filepath.Join(string(t), "proc/self/limits"))
}

// cpus counts the processors that are online: a list such as 0-3,6.
func (t tree) cpus() (n int) {
	for part := range strings.SplitSeq(t.read("sys/devices/system/cpu/online"), ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		if a, b := parse(first), parse(last); a >= 0 && b >= a {
			n += int(b - a + 1)
		}
	}
	return n
}

// cgroup returns the tightest limits of the groups that this process is in. They
// bind a group with all that are below it, so each is looked at up to the root.
func (t tree) cgroup() (version int, memory int64, cpu float64) {
	memory = math.MaxInt64
	for line := range strings.Lines(t.read("proc/self/cgroup")) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		// In a container the path may be the host's, and only its root is mounted.
		for path := fields[2]; ; path = filepath.Dir(path) {
			m, c, v := t.group(fields[1], path)
			version, memory = max(version, v), min(memory, m)
			if c > 0 && (cpu == 0 || c < cpu) {
				cpu = c
			}
			if path == "/" || path == "." {
				break
			}
		}
	}
	return version, memory, cpu
}

// group reads the limits of one group; version is 0 if it has none.
func (t tree) group(controllers, path string) (memory int64, cpu float64, version int) {
	memory = math.MaxInt64
	if controllers == "" {
		if n := t.number(filepath.Join("sys/fs/cgroup", path, "memory.max")); n != Unknown {
			memory, version = n, 2
		}
		if words := strings.Fields(t.read(filepath.Join("sys/fs/cgroup", path, "cpu.max"))); len(words) == 2 {
			version = 2
			if quota := parse(words[0]); quota != math.MaxInt64 {
				cpu = share(quota, parse(words[1]))
			}
		}
		return memory, cpu, version
	}
	for controller := range strings.SplitSeq(controllers, ",") {
		dir := filepath.Join("sys/fs/cgroup", controller, path)
		switch controller {
		case "memory":
			// No limit is a number near the largest, rounded to pages.
			if n := t.number(filepath.Join(dir, "memory.limit_in_bytes")); n != Unknown {
				version = 1
				if n < 1<<60 {
					memory = n
				}
			}
		case "cpu":
			if quota := t.number(filepath.Join(dir, "cpu.cfs_quota_us")); quota > 0 {
				cpu, version = share(quota, t.number(filepath.Join(dir, "cpu.cfs_period_us"))), 1
			}
		}
	}
	return memory, cpu, version
}

func share(quota, period int64) float64 {
	if quota <= 0 || period <= 0 {
		return 0
	}
	return float64(quota) / float64(period)
}
