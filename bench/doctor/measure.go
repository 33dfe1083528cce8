package doctor

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
)

// Self returns the settings of this process.
func Self() Process {
	samples := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/gomemlimit:bytes"}}
	metrics.Read(samples)
	p := Process{
		MaxProcs: runtime.GOMAXPROCS(0), MemoryLimit: math.MaxInt64, GCPercent: 100,
		PageSize: int64(os.Getpagesize()),
	}
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

// ErrDisturbed is returned for a measurement that cannot be believed.
var ErrDisturbed = errors.New("doctor: other things were going on")

// measureSteps is how often the slabs are looked at.
const measureSteps = 8

// MeasureSocket returns the kernel memory of one idle TCP socket that an epoll
// watches, file and all: n connections over 127.0.0.1 are opened in steps, both
// ends, and the kernel's slabs compared. It is the median of the steps:
// the kernel still frees sockets that were closed a moment ago, and sockets of
// other processes count, too.
func MeasureSocket(n int) (int64, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	var conns []*net.TCPConn
	defer func() {
		for _, c := range conns {
			_ = c.SetLinger(0) // so that none lingers in TIME_WAIT
			_ = c.Close()
		}
	}()
	step := max(1, n/measureSteps)
	var each []int64
	for range measureSteps {
		before := tree("/").memory("Slab:")
		for range step {
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
		each = append(each, (tree("/").memory("Slab:")-before)/int64(2*step))
	}
	slices.Sort(each)
	median := each[len(each)/2]
	if median < leastSocketBytes || median > mostSocketBytes {
		return 0, fmt.Errorf("%w: a socket seems to take %d B of kernel memory", ErrDisturbed, median)
	}
	return median, nil
}
