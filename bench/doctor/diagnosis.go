package doctor

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// What a connection costs, by the tables of the README.
const (
	// residentBytes is the RSS of the server for each idle connection that the
	// event loops accepted, and heapBytes the part of it that is live heap.
	residentBytes = 660
	heapBytes     = 590
	// socketBytes is the kernel's memory for an idle connection, outside of the
	// process, unless it is measured: socket, inode, file, dentry and epoll entry.
	// A measurement beyond the bounds is not believed: the socket alone is over
	// 2 KB, and slabs that are half empty make it seem less.
	socketBytes                       = 4608
	leastSocketBytes, mostSocketBytes = 3072, 16 << 10
	// stalledBytes is what the kernel keeps in the send buffer of a client that
	// reads nothing, across an Ethernet.
	stalledBytes = 87_000
	// acceptMicros is the CPU time to accept and upgrade a connection.
	acceptMicros = 40
)

// Verdict says whether a limit allows what is asked for.
type Verdict string

// The verdicts.
const (
	OK       Verdict = "ok"
	TooLow   Verdict = "too low"
	Advice   Verdict = "advice"      // binds no number of connections, but should be set otherwise
	NotShown Verdict = "not visible" // it may be the host's, outside of the container
)

// Finding is one limit.
type Finding struct {
	Name     string
	Value    string
	Allows   int64 // connections; Unknown if it bounds none
	Soft     bool  // beyond it things get slow, but nobody is refused
	Verdict  Verdict
	Why      string   // the arithmetic
	Commands []string // that raise it to the target, if it is too low
}

// Diagnosis is what the limits allow together.
type Diagnosis struct {
	Target   int64 // connections that the verdicts are about
	Allowed  int64 // connections that all limits allow now
	Binding  string
	Findings []Finding
}

// Diagnose judges the limits for target connections in one server process; 0 is
// as many as they allow.
func (f *Facts) Diagnose(target int64) *Diagnosis {
	d := &Diagnosis{Allowed: math.MaxInt64}
	for _, x := range f.findings(0) {
		if x.Allows != Unknown && !x.Soft && x.Allows < d.Allowed {
			d.Allowed, d.Binding = x.Allows, x.Name
		}
	}
	if d.Target = target; target == 0 {
		d.Target = d.Allowed
	}
	d.Findings = f.findings(d.Target)
	return d
}

// Missing returns the limits that are too low.
func (d *Diagnosis) Missing() (names []string) {
	for _, x := range d.Findings {
		if x.Verdict == TooLow {
			names = append(names, x.Name)
		}
	}
	return names
}

func (f *Facts) findings(n int64) []Finding {
	all := []Finding{
		f.descriptors(n), f.nrOpen(n), f.fileMax(n), f.conntrack(n),
		f.machineMemory(n), f.cgroupMemory(n), f.memoryLimit(n), f.collector(),
		f.tcpMem(n), f.buffers(), f.backlog(n), f.synBacklog(n), f.ports(n), f.processors(n),
	}
	for i := range all {
		x := &all[i]
		switch {
		case x.Verdict != "":
		case x.Allows != Unknown && x.Allows < n:
			x.Verdict = TooLow
		default:
			x.Verdict = OK
		}
		if x.Verdict == OK || x.Verdict == NotShown {
			x.Commands = nil
		}
	}
	return all
}

// kernel is the kernel's memory for one idle connection.
func (f *Facts) kernel() (bytes int64, source string) {
	if f.SocketBytes > 0 {
		return f.SocketBytes, "measured"
	}
	return socketBytes, "assumed"
}

// each is the memory for one idle connection in the process, with what the
// collector lets grow, and in the kernel.
func (f *Facts) each() (bytes int64, sum string) {
	growth := int64(heapBytes)
	if f.GCPercent >= 0 {
		growth = heapBytes * int64(f.GCPercent) / 100
	}
	kernel, source := f.kernel()
	bytes = residentBytes + growth + kernel
	return bytes, fmt.Sprintf("%s B each: %d RSS + %d until the next collection + %d in the kernel (%s)",
		group(bytes), residentBytes, growth, kernel, source)
}

// reserve is what the library keeps of n descriptors for other uses.
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
		Why: fmt.Sprintf("%s less %s that the library keeps for files and other sockets; Go raises the soft limit to the hard one",
			amount(limit), group(reserve(limit))),
		Commands: []string{
			fmt.Sprintf("ulimit -n %d    # as root, in the shell that starts the server", need),
			fmt.Sprintf("LimitNOFILE=%d    # systemd: [Service] of its unit, then systemctl daemon-reload", need),
			fmt.Sprintf("docker run --ulimit nofile=%d:%d    # Kubernetes: LimitNOFILE= of the node's containerd.service", need, need),
		},
	}
}

// sysctl are the commands for one kernel setting, now and at each boot.
func sysctl(name, value, container string) []string {
	set := name + "=" + value
	if strings.Contains(value, " ") {
		set = name + `="` + value + `"`
	}
	commands := []string{
		"sysctl -w " + set,
		fmt.Sprintf("echo '%s = %s' >> /etc/sysctl.d/90-websocket.conf", name, value),
	}
	if container != "" {
		commands = append(commands, container)
	}
	return commands
}

const onHost = "# in a container: set it on the host (Kubernetes: on the node); it is not the container's own"

// inPod is the container's way to set one of its own network settings.
func inPod(name string, value int64) string {
	return fmt.Sprintf("docker run --sysctl %s=%d    # Kubernetes: securityContext.sysctls of the pod", name, value)
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

func (f *Facts) conntrack(n int64) Finding {
	const name = "net.netfilter.nf_conntrack_max"
	x := Finding{Name: name, Value: amount(f.Conntrack), Allows: Unknown}
	if f.Conntrack == Unknown {
		x.Value, x.Verdict, x.Why = "no module", OK, "the kernel tracks no connections here"
		return x
	}
	used := max(f.ConntrackUsed, 0)
	x.Allows = max(f.Conntrack-used, 0)
	x.Why = fmt.Sprintf("an entry for each connection if a firewall rule asks for state, less %s in use; beyond it packets are dropped", group(used))
	x.Commands = append(sysctl(name, strconv.FormatInt(n+n/4+used, 10), onHost),
		"iptables -t raw -A PREROUTING -p tcp --dport PORT -j NOTRACK    # or do without: OUTPUT with --sport as well")
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
	x.Commands = []string{fmt.Sprintf("# %s more: a larger machine, or fewer connections on this one", size(n*each-f.MemAvailable))}
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
		x.Commands = []string{fmt.Sprintf("GOMEMLIMIT=%dMiB    # in the server's environment", max(1, n*(residentBytes+heapBytes)>>20))}
		return x
	}
	if f.CgroupMemory == math.MaxInt64 {
		return x
	}
	if left := (room - n*kernel) / 10 * 9; left > n*residentBytes {
		x.Verdict = Advice
		x.Why = "in a group with a memory limit the collector should know of it: nine tenths of what the sockets leave"
		x.Commands = []string{fmt.Sprintf("GOMEMLIMIT=%dMiB    # in the server's environment", left>>20)}
	}
	return x
}

// collector judges GOGC.
func (f *Facts) collector() Finding {
	x := Finding{Name: "GOGC", Value: strconv.Itoa(f.GCPercent), Allows: Unknown}
	if f.GCPercent >= 0 {
		x.Why = fmt.Sprintf("the heap grows by %d %% before it is collected; it is in the memory for each connection", f.GCPercent)
		return x
	}
	x.Value, x.Why = "off", "collected near GOMEMLIMIT only"
	if f.MemoryLimit == math.MaxInt64 {
		x.Verdict, x.Why = Advice, "nothing is ever collected, as GOMEMLIMIT is not set either"
		x.Commands = []string{"unset GOGC    # or set GOMEMLIMIT beside it"}
	}
	return x
}

func (f *Facts) tcpMem(n int64) Finding {
	const name = "net.ipv4.tcp_mem"
	x := Finding{Name: name, Value: triple(f.TCPMem) + " pages", Allows: Unknown, Soft: true}
	if f.TCPMem[2] == Unknown {
		x.Value, x.Verdict, x.Why = amount(Unknown), NotShown, "the buffers of all TCP sockets of the machine"
		return x
	}
	x.Allows = f.TCPMem[2]
	x.Why = fmt.Sprintf("one page of %s each, as when all are sent to at once; idle ones take none, and of stalled clients with %s each it holds %s",
		size(f.PageSize), size(stalledBytes), group(f.TCPMem[2]*f.PageSize/stalledBytes))
	x.Commands = sysctl(name, fmt.Sprintf("%d %d %d", n*3/4, n, n*3/2), onHost)
	if n*3/2*f.PageSize > f.MemTotal/2 && f.MemTotal != Unknown {
		x.Commands = append(x.Commands, "# this is more than half of the machine's memory: send to fewer at once, or take a larger machine")
	}
	return x
}

// buffers tells what one socket may take of tcp_mem.
func (f *Facts) buffers() Finding {
	x := Finding{
		Name: "tcp_rmem, tcp_wmem", Value: triple(f.ReadBuffer) + "; " + triple(f.WriteBuffer), Allows: Unknown,
		Why: "least, first and largest buffer of a socket; a higher one only lets slow clients hold more",
	}
	if f.WriteBuffer[2] == Unknown || f.ReadBuffer[2] == Unknown {
		x.Value, x.Verdict = amount(Unknown), NotShown
		return x
	}
	if f.TCPMem[2] != Unknown {
		x.Why = fmt.Sprintf("a stalled client may fill %s to send; of those tcp_mem holds %s. A higher one only lets slow clients hold more",
			size(f.WriteBuffer[2]), group(f.TCPMem[2]*f.PageSize/max(f.WriteBuffer[2], 1)))
	}
	return x
}

// burst is how many of n connections should find room in a listener's queue when
// all come back at once.
func burst(n int64) int64 {
	want := int64(4096)
	for want < n/16 && want < 65_535 {
		want *= 2
	}
	return min(want, 65_535)
}

func (f *Facts) backlog(n int64) Finding {
	const name = "net.core.somaxconn"
	x := Finding{Name: name, Value: amount(f.Somaxconn), Allows: Unknown}
	if f.Somaxconn == Unknown {
		x.Verdict, x.Why = NotShown, "the queue of accepted connections"
		return x
	}
	want := burst(n)
	x.Why = fmt.Sprintf("for each event loop, which listens for itself; %s are enough for %s that reconnect at once. Others try again after 1 s",
		group(want), group(n))
	if f.Somaxconn < want {
		x.Verdict = TooLow
		x.Commands = sysctl(name, strconv.FormatInt(want, 10), inPod(name, want))
	}
	return x
}

func (f *Facts) synBacklog(n int64) Finding {
	const name = "net.ipv4.tcp_max_syn_backlog"
	x := Finding{Name: name, Value: amount(f.SynBacklog), Allows: Unknown, Why: "connections that are half open"}
	want := burst(n)
	switch {
	case f.SynBacklog == Unknown:
		x.Verdict = NotShown
	case f.Syncookies > 0:
		x.Why = "it does not bind while net.ipv4.tcp_syncookies is on, which it is"
	case f.SynBacklog < want:
		x.Verdict = TooLow
		x.Why += "; beyond it they are dropped, as net.ipv4.tcp_syncookies is off or not visible"
		x.Commands = sysctl(name, strconv.FormatInt(want, 10), inPod(name, want))
	}
	return x
}

func (f *Facts) ports(n int64) Finding {
	const name = "net.ipv4.ip_local_port_range"
	x := Finding{Name: name, Value: fmt.Sprintf("%d %d", f.Ports[0], f.Ports[1]), Allows: Unknown}
	count := f.Ports[1] - f.Ports[0] + 1
	if f.Ports[0] == Unknown || count < 1 {
		x.Value, x.Verdict, x.Why = amount(Unknown), NotShown, "ports of connections that go out"
		return x
	}
	addresses := (n + count - 1) / count
	x.Why = fmt.Sprintf("not the server's: a load generator or a proxy has %s connections from each of its addresses to one port, so it needs %s of them",
		group(count), group(addresses))
	if addresses > 1 && count < 64_512 {
		x.Verdict = Advice
		x.Commands = sysctl(name, "1024 65535", fmt.Sprintf("# for a proxy on this machine: then %s addresses are enough", group((n+64_511)/64_512)))
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

// amount is a limit for people.
func amount(n int64) string {
	switch n {
	case Unknown:
		return "?"
	case math.MaxInt64:
		return "unlimited"
	}
	return group(n)
}

// group is n with its digits in groups.
func group(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func triple(n [3]int64) string { return fmt.Sprintf("%d %d %d", n[0], n[1], n[2]) }

// size is a number of bytes for people.
func size(n int64) string {
	if n == Unknown {
		return "?"
	}
	value, unit := float64(n)/(1<<10), " KiB"
	for _, larger := range []string{" MiB", " GiB", " TiB"} {
		if value >= 1024 {
			value, unit = value/1024, larger
		}
	}
	return strings.TrimSuffix(strconv.FormatFloat(value, 'f', 1, 64), ".0") + unit
}
