package doctor

import (
	"fmt"
	"math"
)

// The costs of a connection, from the tables of the README.
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
	// stalledBytes is the memory that the kernel keeps in the send buffer of a
	// client that reads nothing, across an Ethernet.
	stalledBytes = 87_000
	// acceptMicros is the CPU time to accept and upgrade a connection.
	acceptMicros = 40
)

// Verdict says whether a limit allows the connections.
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

// Diagnosis holds the findings, and the connections that all limits together allow.
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

// each is the memory for one idle connection in the process, with the memory
// that the collector lets grow, and in the kernel.
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
