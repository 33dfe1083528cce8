package doctor

import (
	"fmt"
	"math"
	"net"
	"os"
	"runtime"
	"runtime/metrics"
)

// Self is what the running process knows of itself.
func Self() Process {
	samples := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/gomemlimit:bytes"}}
	metrics.Read(samples)
	p := Process{MaxProcs: runtime.GOMAXPROCS(0), MemoryLimit: math.MaxInt64, GCPercent: 100, PageSize: int64(os.Getpagesize())}
	if v := samples[0].Value; v.Kind() == metrics.KindUint64 {
		p.GCPercent = -1
		if n := v.Uint64(); n < math.MaxInt32 {
			p.GCPercent = int(n)
		}
	}
	if v := samples[1].Value; v.Kind() == metrics.KindUint64 {
		p.MemoryLimit = int64(min(v.Uint64(), math.MaxInt64))
	}
	return p
}

// MeasureSocket returns the kernel memory of one idle TCP socket that an epoll
// watches, file and all: n connections over 127.0.0.1 are opened, both ends, and
// the kernel's slabs compared. What else the machine does meanwhile counts, too.
func MeasureSocket(n int) (int64, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	conns := make([]*net.TCPConn, 0, 2*n)
	defer func() {
		for _, c := range conns {
			_ = c.SetLinger(0) // so that none lingers in TIME_WAIT
			_ = c.Close()
		}
	}()
	slabs := func() int64 { return tree("/").memory("Slab:") }
	before := slabs()
	for range n {
		out, err := net.Dial("tcp4", ln.Addr().String())
		if err != nil {
			return 0, err
		}
		conns = append(conns, out.(*net.TCPConn))
		in, err := ln.Accept()
		if err != nil {
			return 0, err
		}
		conns = append(conns, in.(*net.TCPConn))
	}
	each := (slabs() - before) / int64(len(conns))
	if each < leastSocketBytes || each > mostSocketBytes {
		return 0, fmt.Errorf("doctor: a socket seems to take %d B of kernel memory: other things were going on", each)
	}
	return each, nil
}
