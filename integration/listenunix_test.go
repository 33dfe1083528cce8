package integration_test

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// expectServed has a client connect to a Unix socket, and leave.
func expectServed(s *harness.Server, path string) {
	s.T.Helper()
	c := s.DialOn("unix", path)
	c.Upgrade()
	_ = c.Close()
}

// runOn returns the error of Run for a manager that cannot listen on addr.
func runOn(t *testing.T, addr string) error {
	t.Helper()
	m := harness.NewManager(t, ws.WithListenAddr(addr))
	return m.Run()
}

// Nothing but the socket itself is removed, whatever the path looks like as a
// URL.
func TestUnixPathsAreTakenAsTheyAre(t *testing.T) {
	for name, path := range map[string]string{
		"fragment": "app#1/ws.sock", "query": "app?x=1/ws.sock", "escape": "a%41pp/ws.sock", "at sign": "app/@data",
		"host": "app/../app/ws.sock", "space": "a pp/ws.sock",
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, dir := range []string{"app", "aApp", filepath.Dir(path), "app/@data.d"} {
				require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o700))
				require.NoError(t, os.WriteFile(filepath.Join(root, dir, "precious"), nil, 0o600))
			}
			before := tree(t, root)
			full := root + "/" + path
			s := harness.Start(t, ws.WithListenAddr("unix://"+full), ws.WithUnixSocketMode(0o600))
			require.Equal(t, full, s.Addr().String())
			expectServed(s, full)
			s.Stop()
			require.Equal(t, before, tree(t, root))
		})
	}
}

// A name with @ is abstract: a directory of that name is none of our business.
func TestAbstractSocket(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("Linux alone has abstract sockets")
	}
	t.Chdir(t.TempDir())
	name := "@" + filepath.Base(t.TempDir()) + filepath.Base(filepath.Dir(t.TempDir()))
	require.NoError(t, os.Mkdir(name, 0o700))
	require.NoError(t, os.WriteFile(name+"/precious", nil, 0o600))
	s := harness.Start(t, ws.WithListenAddr("unix://"+name), ws.WithUnixSocketMode(0o600))
	expectServed(s, name)
	require.ErrorIs(t, runOn(t, "unix://"+name), syscall.EADDRINUSE)
	s.Stop()
	require.FileExists(t, name+"/precious")
	harness.Start(t, ws.WithListenAddr("unix://"+name)) // it is free again
}

func TestUnixPathInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ws.sock")
	first := harness.Start(t, ws.WithListenAddr("unix://"+path))
	err := runOn(t, "unix://"+path)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.EqualError(t, err,
		"ws: listen unix://"+path+": another process is listening: address already in use")
	expectServed(first, path)
	first.Stop()
	require.NoFileExists(t, path)
}

// A socket that nobody listens on is replaced.
func TestStaleUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ws.sock")
	leaveSocket(t, path)
	s := harness.Start(t, ws.WithListenAddr("unix://"+path))
	expectServed(s, path)
	s.Stop()
	require.NoFileExists(t, path)
}

// leaveSocket leaves a socket as a process that was killed does.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
}

// A file that is no stream socket is an error, and stays.
func TestUnixPathOfSomethingElse(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"file":      func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"symbolic link": func(path string) error {
			leaveSocket(t, path+".target")
			return os.Symlink(path+".target", path)
		},
		"datagram socket": func(path string) error {
			nc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err == nil {
				t.Cleanup(func() { _ = nc.Close() })
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ws.sock")
			require.NoError(t, put(path))
			before, err := os.Lstat(path)
			require.NoError(t, err)
			require.ErrorContains(t, runOn(t, "unix://"+path), "ws: listen unix://"+path+": ")
			after, err := os.Lstat(path)
			require.NoError(t, err)
			require.True(t, os.SameFile(before, after))
		})
	}
}

// At the end a manager removes its own socket, not one that has taken its path.
func TestUnixPathOfASuccessor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ws.sock")
	old := harness.Start(t, ws.WithListenAddr("unix://"+path))
	require.NoError(t, os.Remove(path))
	successor := harness.Start(t, ws.WithListenAddr("unix://"+path))
	old.Stop()
	expectServed(successor, path)
	successor.Stop()
	require.NoFileExists(t, path)
}

// A relative path is relative to the folder in which Run was called, also after a chdir.
func TestRelativeUnixPath(t *testing.T) {
	root := t.TempDir()
	t.Chdir(root)
	s := harness.Start(t, ws.WithListenAddr("unix://ws.sock"))
	t.Chdir(t.TempDir())
	expectServed(s, filepath.Join(root, "ws.sock"))
	s.Stop()
	require.NoFileExists(t, filepath.Join(root, "ws.sock"))
}

func TestUnixSocketMode(t *testing.T) {
	for _, mode := range []fs.FileMode{0o600, 0o660, 0o666, 0o777} {
		t.Run(mode.String(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ws.sock")
			s := harness.Start(t, ws.WithListenAddr("unix://"+path), ws.WithUnixSocketMode(mode))
			info, err := os.Lstat(path)
			require.NoError(t, err)
			require.Equal(t, mode, info.Mode().Perm())
			expectServed(s, path)
			s.Stop()
		})
	}
}

func TestRemoteAddrOfAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ws.sock")
	s := harness.Start(t, ws.WithListenAddr("unix://"+path))
	c := s.DialOn("unix", path)
	c.Upgrade()
	s.RangeClients(func(c *ws.Client) bool {
		require.Empty(t, c.RemoteAddr())
		return true
	})
	_ = c.Close()
}

// tree lists the files below root.
func tree(t *testing.T, root string) (paths []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	}))
	return paths
}
