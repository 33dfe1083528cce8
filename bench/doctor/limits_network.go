package doctor

import (
	"fmt"
	"strconv"
)

func (f *Facts) conntrack(n int64) Finding {
	const name = "net.netfilter.nf_conntrack_max"
	x := Finding{Name: name, Value: amount(f.Conntrack), Allows: Unknown}
	if f.Conntrack == Unknown {
		x.Value, x.Verdict, x.Why = "no module", OK, "the kernel tracks no connections here"
		return x
	}
	used := max(f.ConntrackUsed, 0)
	x.Allows = max(f.Conntrack-used, 0)
	x.Why = fmt.Sprintf("an entry for each connection if a firewall rule asks for state, less %s in use; beyond it "+
		"packets are dropped", group(used))
	x.Commands = append(sysctl(name, strconv.FormatInt(n+n/4+used, 10), onHost),
		"iptables -t raw -A PREROUTING -p tcp --dport PORT -j NOTRACK    # or do without: OUTPUT with --sport as well")
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
	x.Why = fmt.Sprintf("one page of %s each, as when all are sent to at once; idle ones take none, and of stalled "+
		"clients with %s each it holds %s",
		size(f.PageSize), size(stalledBytes), group(f.TCPMem[2]*f.PageSize/stalledBytes))
	x.Commands = sysctl(name, fmt.Sprintf("%d %d %d", n*3/4, n, n*3/2), onHost)
	if n*3/2*f.PageSize > f.MemTotal/2 && f.MemTotal != Unknown {
		x.Commands = append(x.Commands,
			"# this is more than half of the machine's memory: send to fewer at once, or take a larger machine")
	}
	return x
}

// buffers reports how much of tcp_mem one socket may take.
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
		x.Why = fmt.Sprintf("a stalled client may fill %s to send; of those tcp_mem holds %s. A higher one only lets "+
			"slow clients hold more",
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
	x.Why = fmt.Sprintf("for each event loop, which listens for itself; %s are enough for %s that reconnect at "+
		"once. Others try again after 1 s",
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
	x.Why = fmt.Sprintf("not the server's: a load generator or a proxy has %s connections from each of its "+
		"addresses to one port, so it needs %s of them",
		group(count), group(addresses))
	if addresses > 1 && count < 64_512 {
		x.Verdict = Advice
		x.Commands = sysctl(name, "1024 65535",
			fmt.Sprintf("# for a proxy on this machine: then %s addresses are enough", group((n+64_511)/64_512)))
	}
	return x
}
