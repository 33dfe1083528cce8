package doctor_test

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/bench/doctor"
)

// unpack writes a recorded tree, "-- path --" and then the file, to a directory.
func unpack(t *testing.T, text string) string {
	t.Helper()
	root := t.TempDir()
	_, text, _ = strings.Cut(text, "-- ") // the text before it describes the tree
	for file := range strings.SplitSeq(text, "\n-- ") {
		path, content, ok := strings.Cut(file, " --\n")
		require.True(t, ok, "%q", file)
		path = filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	return root
}

// recorded reads a recorded machine.
func recorded(t *testing.T, name string, p doctor.Process) *doctor.Facts {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	f, err := doctor.Read(unpack(t, string(text)), p)
	require.NoError(t, err)
	return f
}

// verdict is the result of a finding.
type verdict struct {
	allows  int64
	verdict doctor.Verdict
}

func verdicts(d *doctor.Diagnosis) map[string]verdict {
	m := make(map[string]verdict)
	for _, f := range d.Findings {
		m[f.Name] = verdict{f.Allows, f.Verdict}
	}
	return m
}

func commands(t *testing.T, d *doctor.Diagnosis, name string) []string {
	t.Helper()
	for _, f := range d.Findings {
		if f.Name == name {
			return f.Commands
		}
	}
	t.Fatalf("no finding %s", name)
	return nil
}

func process(maxProcs int) doctor.Process {
	return doctor.Process{MaxProcs: maxProcs, MemoryLimit: math.MaxInt64, GCPercent: 100, PageSize: 4096}
}

const none = doctor.Unknown

// A connection is taken to need 660 + 590 + 4,608 = 5,858 B.
func TestSmallMachine(t *testing.T) {
	f := recorded(t, "vm.txt", process(1))
	now := f.Diagnose(0)
	assert.EqualValues(t, 731_204*1024/5858, now.Allowed)
	assert.Equal(t, now.Allowed, now.Target)
	assert.Equal(t, "memory", now.Binding)
	assert.Equal(t, []string{"net.ipv4.tcp_mem", "net.core.somaxconn"}, now.Missing(), "they refuse nobody")

	d := f.Diagnose(1_000_000)
	assert.Equal(t, map[string]verdict{
		"RLIMIT_NOFILE":                  {524_288 - 1024, doctor.TooLow},
		"fs.nr_open":                     {1_048_576 - 1024, doctor.OK},
		"fs.file-max":                    {math.MaxInt64 - 1024, doctor.OK},
		"net.netfilter.nf_conntrack_max": {none, doctor.OK},
		"memory":                         {127_817, doctor.TooLow},
		"cgroup memory":                  {none, doctor.OK},
		"GOMEMLIMIT":                     {none, doctor.OK},
		"GOGC":                           {none, doctor.OK},
		"net.ipv4.tcp_mem":               {21_402, doctor.TooLow},
		"tcp_rmem, tcp_wmem":             {none, doctor.OK},
		"net.core.somaxconn":             {none, doctor.TooLow},
		"net.ipv4.tcp_max_syn_backlog":   {none, doctor.OK},
		"net.ipv4.ip_local_port_range":   {none, doctor.Advice},
		"GOMAXPROCS":                     {none, doctor.OK},
	}, verdicts(d))
	assert.Equal(t, []string{
		"ulimit -n 1001024    # as root, in the shell that starts the server",
		"LimitNOFILE=1001024    # systemd: [Service] of its unit, then systemctl daemon-reload",
		"docker run --ulimit nofile=1001024:1001024    # Kubernetes: LimitNOFILE= of the node's containerd.service",
	}, commands(t, d, "RLIMIT_NOFILE"))
	assert.Equal(t, []string{"# 4.8 GiB more: a larger machine, or fewer connections on this one"},
		commands(t, d, "memory"))
	assert.Equal(t, []string{
		`sysctl -w net.ipv4.tcp_mem="750000 1000000 1500000"`,
		"echo 'net.ipv4.tcp_mem = 750000 1000000 1500000' >> /etc/sysctl.d/90-websocket.conf",
		"# in a container: set it on the host (Kubernetes: on the node); it is not the container's own",
		"# this is more than half of the machine's memory: send to fewer at once, or take a larger machine",
	}, commands(t, d, "net.ipv4.tcp_mem"))
	assert.Equal(t, []string{
		"sysctl -w net.core.somaxconn=65535",
		"echo 'net.core.somaxconn = 65535' >> /etc/sysctl.d/90-websocket.conf",
		"docker run --sysctl net.core.somaxconn=65535    # Kubernetes: securityContext.sysctls of the pod",
	}, commands(t, d, "net.core.somaxconn"))
	assert.Empty(t, commands(t, d, "fs.nr_open"))
	assert.Empty(t, f.Diagnose(10_000).Missing())
}

func TestContainer(t *testing.T) {
	f := recorded(t, "container.txt", process(8))
	d := f.Diagnose(100_000)
	assert.EqualValues(t, 536_870_912/5858, d.Allowed)
	assert.Equal(t, "cgroup memory", d.Binding)
	assert.Equal(t, []string{"cgroup memory", "net.core.somaxconn"}, d.Missing())
	v := verdicts(d)
	assert.Equal(t, verdict{none, doctor.NotShown}, v["net.ipv4.tcp_mem"])
	assert.Equal(t, verdict{250_000, doctor.OK}, v["net.netfilter.nf_conntrack_max"])
	assert.Equal(t, verdict{none, doctor.Advice}, v["GOMAXPROCS"])
	assert.Equal(t, []string{
		"MemoryMax=615M    # systemd: [Service] of its unit", // 1.1 x 100,000 x 5,858 B
		"docker run --memory 615m    # Kubernetes: resources.limits.memory: 615Mi",
	}, commands(t, d, "cgroup memory"))
	assert.Equal(t, []string{"GOMAXPROCS=2    # in the server's environment; or leave it unset"},
		commands(t, d, "GOMAXPROCS"))

	// 512 MiB less 50,000 x 4,608 B, and of that nine tenths.
	assert.Equal(t, []string{"GOMEMLIMIT=263MiB    # in the server's environment"},
		commands(t, f.Diagnose(50_000), "GOMEMLIMIT"))

	p := process(2)
	p.MemoryLimit, p.GCPercent = 50<<20, -1
	d = recorded(t, "container.txt", p).Diagnose(0)
	assert.EqualValues(t, 50<<20/660, d.Allowed)
	assert.Equal(t, "GOMEMLIMIT", d.Binding)
	assert.Equal(t, doctor.OK, verdicts(d)["GOGC"].verdict)
	assert.Equal(t, doctor.OK, verdicts(d)["GOMAXPROCS"].verdict)

	p.MemoryLimit = math.MaxInt64
	d = recorded(t, "container.txt", p).Diagnose(0)
	assert.Equal(t, []string{"unset GOGC    # or set GOMEMLIMIT beside it"}, commands(t, d, "GOGC"))
}

func TestTunedServer(t *testing.T) {
	f := recorded(t, "server.txt", process(64))
	assert.Equal(t, 64, f.CPUs)
	d := f.Diagnose(1_000_000)
	assert.Empty(t, d.Missing())
	assert.EqualValues(t, 2_000_000, d.Allowed)
	assert.Equal(t, "net.netfilter.nf_conntrack_max", d.Binding)
	assert.Equal(t, verdict{64 << 30 / 5858, doctor.OK}, verdicts(d)["cgroup memory"], "of the slice above the unit")

	d = f.Diagnose(3_000_000)
	assert.Equal(t, []string{"RLIMIT_NOFILE", "fs.nr_open", "net.netfilter.nf_conntrack_max"}, d.Missing())
	assert.Equal(t, []string{
		"sysctl -w fs.nr_open=3001024",
		"echo 'fs.nr_open = 3001024' >> /etc/sysctl.d/90-websocket.conf",
		"# in a container: set it on the host (Kubernetes: on the node); it is not the container's own",
	}, commands(t, d, "fs.nr_open"))

	f.SocketBytes = 100_000 // as if measured
	assert.EqualValues(t, 64<<30/(660+590+100_000), f.Diagnose(0).Allowed)
}

func TestFewPortsAndNoCookies(t *testing.T) {
	f := recorded(t, "vm.txt", process(1))
	f.Syncookies, f.MaxProcs, f.CPUs = 0, 1, 4
	d := f.Diagnose(50_000)
	assert.Equal(t, "sysctl -w net.ipv4.tcp_max_syn_backlog=4096", commands(t, d, "net.ipv4.tcp_max_syn_backlog")[0])
	assert.Equal(t, `sysctl -w net.ipv4.ip_local_port_range="1024 65535"`,
		commands(t, d, "net.ipv4.ip_local_port_range")[0])
	assert.Equal(t, []string{"unset GOMAXPROCS"}, commands(t, d, "GOMAXPROCS"))
}

func TestCgroup(t *testing.T) {
	const limits = "\n-- proc/self/limits --\nMax open files 100 100 files\n"
	tests := []struct {
		name, tree string
		version    int
		memory     int64
		cpu        float64
	}{
		{"none", "", 0, math.MaxInt64, 0},
		{
			"v1", "-- proc/self/cgroup --\n4:memory:/a/b\n3:cpu,cpuacct:/a\n" +
				"-- sys/fs/cgroup/memory/a/b/memory.limit_in_bytes --\n9223372036854771712\n" +
				"-- sys/fs/cgroup/memory/a/memory.limit_in_bytes --\n1000000\n" +
				"-- sys/fs/cgroup/cpu/a/cpu.cfs_quota_us --\n50000\n-- sys/fs/cgroup/cpu/a/cpu.cfs_period_us --\n100000",
			1, 1_000_000, 0.5,
		},
		{
			"v1, no quota, path of the host", "-- proc/self/cgroup --\n4:memory:/docker/1234\n3:cpu,cpuacct:/docker/1234\n" +
				"-- sys/fs/cgroup/memory/memory.limit_in_bytes --\n4096000\n-- sys/fs/cgroup/cpu/cpu.cfs_quota_us --\n-1",
			1, 4_096_000, 0,
		},
		{
			"v2, tightest", "-- proc/self/cgroup --\n0::/a/b\n-- sys/fs/cgroup/a/memory.max --\n2000000\n" +
				"-- sys/fs/cgroup/a/b/memory.max --\n3000000\n-- sys/fs/cgroup/a/b/cpu.max --\n250000 100000\n" +
				"-- sys/fs/cgroup/a/cpu.max --\nmax 100000",
			2, 2_000_000, 2.5,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := doctor.Read(unpack(t, tt.tree+limits), process(1))
			require.NoError(t, err)
			assert.Equal(t, tt.version, f.Cgroup)
			assert.Equal(t, tt.memory, f.CgroupMemory)
			assert.InDelta(t, tt.cpu, f.CgroupCPU, 1e-9)
			d := f.Diagnose(0)
			assert.EqualValues(t, 36, d.Allowed, "100 less 64")
			assert.Equal(t, doctor.NotShown, verdicts(d)["fs.nr_open"].verdict)
		})
	}
	_, err := doctor.Read(t.TempDir(), process(1))
	require.ErrorContains(t, err, "proc/self/limits")
}

// As many descriptors as are asked for are enough, and hardly more.
func TestDescriptors(t *testing.T) {
	for n := int64(1); n < 3_000_000; n += 1 + n/7 {
		limit := doctor.DescriptorsFor(n)
		assert.GreaterOrEqual(t, limit-doctor.Reserve(limit), n)
		assert.Less(t, limit-2-doctor.Reserve(limit-2), n)
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", -100: "-100"} {
		assert.Equal(t, want, doctor.Group(n))
	}
	for n, want := range map[int64]string{
		100: "0.1 KiB", 1 << 20: "1 MiB", 1023 << 10: "1023 KiB",
		3 << 39: "1.5 TiB", doctor.Unknown: "?",
	} {
		assert.Equal(t, want, doctor.Size(n))
	}
}

// On the machine that runs the test.
func TestHere(t *testing.T) {
	f, err := doctor.Read("/", doctor.Self())
	require.NoError(t, err)
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	assert.EqualValues(t, min(limit.Max, math.MaxInt64), f.Hard)
	assert.Positive(t, f.MemAvailable)
	assert.Positive(t, f.MaxProcs)
	d := f.Diagnose(0)
	assert.Positive(t, d.Allowed)
	assert.LessOrEqual(t, d.Allowed, f.Hard)
	assert.NotEmpty(t, d.Binding)

	// Other sockets of the machine disturb the measurement, so it has some attempts.
	each, err := doctor.MeasureSocket(1000)
	for range 10 {
		if err == nil {
			break
		}
		each, err = doctor.MeasureSocket(1000)
	}
	if err != nil {
		require.ErrorIs(t, err, doctor.ErrDisturbed)
		assert.Zero(t, each)
		return
	}
	assert.Greater(t, each, int64(2048))
	assert.Less(t, each, int64(16<<10))
}
