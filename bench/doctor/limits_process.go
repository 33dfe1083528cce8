package doctor

import (
	"fmt"
	"math"
	"strconv"
)

// reserve is the number of descriptors that the library keeps for other uses, of n.
func reserve(n int64) int64 { return min(max(n/50, 64), 1024) }

// descriptorsFor is how many descriptors conns connections need.
func descriptorsFor(conns int64) int64 { return conns + min(max((conns+48)/49, 64), 1024) }

func (f *Facts) descriptors(n int64) Finding {
	limit := f.Hard
	if f.NrOpen != Unknown {
		limit = min(limit, f.NrOpen)
	}
	need := descriptorsFor(n)
	return Finding{
		Name: "RLIMIT_NOFILE", Value: amount(f.Soft) + " soft, " + amount(f.Hard) + " hard",
		Allows: limit - reserve(limit),
		Why: fmt.Sprintf("%s less %s that the library keeps for files and other sockets; Go raises the soft limit to "+
			"the hard one",
			amount(limit), group(reserve(limit))),
		Commands: []string{
			fmt.Sprintf("ulimit -n %d    # as root, in the shell that starts the server", need),
			fmt.Sprintf("LimitNOFILE=%d    # systemd: [Service] of its unit, then systemctl daemon-reload", need),
			fmt.Sprintf("docker run --ulimit nofile=%d:%d    "+
				"# Kubernetes: LimitNOFILE= of the node's containerd.service", need, need),
		},
	}
}

func (f *Facts) nrOpen(n int64) Finding {
	x := Finding{Name: "fs.nr_open", Value: amount(f.NrOpen), Allows: Unknown, Why: "the most that RLIMIT_NOFILE can be"}
	if f.NrOpen == Unknown {
		x.Verdict = NotShown
		return x
	}
	x.Allows = f.NrOpen - reserve(f.NrOpen)
	x.Commands = sysctl("fs.nr_open", strconv.FormatInt(descriptorsFor(n), 10), onHost)
	return x
}

func (f *Facts) fileMax(n int64) Finding {
	x := Finding{Name: "fs.file-max", Value: amount(f.FileMax), Allows: Unknown, Why: "open files of the whole machine"}
	if f.FileMax == Unknown {
		x.Verdict = NotShown
		return x
	}
	used := max(f.FilesOpen, 0)
	x.Allows = max(f.FileMax-used, 0)
	x.Why += fmt.Sprintf(", less %s that are open", group(used))
	x.Commands = sysctl("fs.file-max", strconv.FormatInt(descriptorsFor(n)+used+10_000, 10), onHost)
	return x
}

func (f *Facts) machineMemory(n int64) Finding {
	each, sum := f.each()
	x := Finding{Name: "memory", Value: size(f.MemAvailable) + " free of " + size(f.MemTotal), Allows: Unknown, Why: sum}
	if f.MemAvailable == Unknown {
		x.Verdict = NotShown
		return x
	}
	x.Allows = f.MemAvailable / each
	x.Commands = []string{fmt.Sprintf("# %s more: a larger machine, or fewer connections on this one",
		size(n*each-f.MemAvailable))}
	return x
}

func (f *Facts) cgroupMemory(n int64) Finding {
	x := Finding{Name: "cgroup memory", Value: "no limit", Allows: Unknown, Why: "no group of this process has a limit"}
	if f.CgroupMemory == math.MaxInt64 {
		return x
	}
	each, sum := f.each()
	need := (n*each*11/10 + 1<<20 - 1) >> 20
	x.Value = fmt.Sprintf("%s (v%d)", size(f.CgroupMemory), f.Cgroup)
	x.Allows, x.Why = f.CgroupMemory/each, sum+"; the kernel charges the sockets to the group"
	x.Commands = []string{
		fmt.Sprintf("MemoryMax=%dM    # systemd: [Service] of its unit", need),
		fmt.Sprintf("docker run --memory %dm    # Kubernetes: resources.limits.memory: %dMi", need, need),
	}
	return x
}

// memoryLimit judges GOMEMLIMIT.
func (f *Facts) memoryLimit(n int64) Finding {
	x := Finding{Name: "GOMEMLIMIT", Value: "not set", Allows: Unknown, Why: "the collector is paced by GOGC alone"}
	kernel, _ := f.kernel()
	room := min(f.CgroupMemory, max(f.MemTotal, 0))
	if f.MemTotal == Unknown {
		room = f.CgroupMemory
	}
	if f.MemoryLimit != math.MaxInt64 {
		x.Value, x.Allows = size(f.MemoryLimit), f.MemoryLimit/residentBytes
		x.Why = fmt.Sprintf("%d B each in the process; near the limit the collector runs all the time", residentBytes)
		x.Commands = []string{fmt.Sprintf("GOMEMLIMIT=%dMiB    # in the server's environment",
			max(1, n*(residentBytes+heapBytes)>>20))}
		return x
	}
	if f.CgroupMemory == math.MaxInt64 {
		return x
	}
	if left := (room - n*kernel) / 10 * 9; left > n*residentBytes {
		x.Verdict = Advice
		x.Why = "in a group with a memory limit the collector should know the limit: nine tenths of the rest beside " +
			"the sockets"
		x.Commands = []string{fmt.Sprintf("GOMEMLIMIT=%dMiB    # in the server's environment", left>>20)}
	}
	return x
}

// collector judges GOGC.
func (f *Facts) collector() Finding {
	x := Finding{Name: "GOGC", Value: strconv.Itoa(f.GCPercent), Allows: Unknown}
	if f.GCPercent >= 0 {
		x.Why = fmt.Sprintf("the heap grows by %d %% before it is collected; it is in the memory for each connection",
			f.GCPercent)
		return x
	}
	x.Value, x.Why = "off", "collected near GOMEMLIMIT only"
	if f.MemoryLimit == math.MaxInt64 {
		x.Verdict, x.Why = Advice, "nothing is ever collected, as GOMEMLIMIT is not set either"
		x.Commands = []string{"unset GOGC    # or set GOMEMLIMIT beside it"}
	}
	return x
}

// processors judges GOMAXPROCS.
func (f *Facts) processors(n int64) Finding {
	x := Finding{Name: "GOMAXPROCS", Value: fmt.Sprintf("%d of %d CPUs", f.MaxProcs, f.CPUs), Allows: Unknown}
	usable := float64(f.MaxProcs)
	if f.CPUs > 0 {
		usable = min(usable, float64(f.CPUs))
	}
	if f.CgroupCPU > 0 {
		x.Value += fmt.Sprintf(", quota %.2g", f.CgroupCPU)
		usable = min(usable, f.CgroupCPU)
	}
	seconds := float64(n) * acceptMicros / 1e6 / max(usable, 0.01)
	x.Why = fmt.Sprintf("to accept %s takes %.1f s (%d µs of CPU each)", group(n), seconds, acceptMicros)
	most := max(2, int(math.Ceil(f.CgroupCPU))) // as Go's own default
	switch {
	case f.CgroupCPU > 0 && f.MaxProcs > most:
		x.Verdict = Advice
		x.Why += "; more threads than the quota run it out early in each period, and then none runs"
		x.Commands = []string{fmt.Sprintf("GOMAXPROCS=%d    # in the server's environment; or leave it unset", most)}
	case f.CgroupCPU == 0 && f.MaxProcs < f.CPUs:
		x.Verdict = Advice
		x.Why += "; not all processors are used"
		x.Commands = []string{"unset GOMAXPROCS"}
	}
	return x
}
