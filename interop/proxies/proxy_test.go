package proxies_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// product is a kind of proxy.
type product struct {
	name string

	// replace has the text of the documented configuration that a test replaces, with the names
	// of proxy.values.
	replace map[string]string

	// forwarded is the line that passes the client's address to the server. A test of reloads adds
	// reloaded behind it.
	forwarded, reloaded string

	tcp bool // it passes bytes on, on one port: TLS is the server's

	// command returns the command line of a proxy in dir, whose configuration is written with
	// write under the name conf.
	command func(dir, conf string, write func(name, text string)) []string

	reload syscall.Signal
}

// products are the proxies that are tested.
var products = []*product{nginx, haproxy}

var nginx = &product{
	name: "nginx",
	replace: map[string]string{
		"listen 80;":         "listen 127.0.0.1:<plain>;",
		"listen 443 ssl;":    "listen 127.0.0.1:<tls> ssl;",
		"/etc/ssl/site.pem":  "<dir>/site.pem",
		"/etc/ssl/site.key":  "<dir>/site.pem",
		"127.0.0.1:8080":     "<backend>",
		"_read_timeout 60s;": "_read_timeout <timeout>;",
		"_send_timeout 60s;": "_send_timeout <timeout>;",
	},
	forwarded: "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
	reloaded:  "proxy_set_header X-Reloaded yes;",
	command: func(dir, conf string, write func(name, text string)) []string {
		var temp strings.Builder
		for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			fmt.Fprintf(&temp, "    %s_temp_path %s;\n", kind, filepath.Join(dir, kind))
		}
		http := fmt.Sprintf("http {\n    access_log off;\n%s\n    include %s;\n}\n", temp.String(), conf)
		return nginxCommand(dir, "", http, write)
	},
	reload: syscall.SIGHUP, // as nginx -s reload
}

// nginxCommand returns the command line of an nginx with that line at the head of its
// configuration, and with the given contexts.
func nginxCommand(dir, head, contexts string, write func(name, text string)) []string {
	main := filepath.Join(dir, "main.conf")
	write(main, head+fmt.Sprintf(`
user root;
daemon off;
pid %s/nginx.pid;
error_log stderr warn;
worker_processes 2;
worker_rlimit_nofile 16384;
events { worker_connections 12288; }
%s`, dir, contexts))
	return []string{"nginx", "-e", "stderr", "-c", main}
}

// nginxStream is nginx that passes bytes on behind a header of the PROXY protocol.
var nginxStream = &product{
	name: "nginx-stream",
	replace: map[string]string{
		"listen 443;":    "listen 127.0.0.1:<plain>;",
		"127.0.0.1:8080": "<backend>",
	},
	command: func(dir, conf string, write func(name, text string)) []string {
		const module = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;"
		return nginxCommand(dir, module, fmt.Sprintf("include %s;\n", conf), write)
	},
	tcp: true,
}

// haproxyTCP is the same with HAProxy.
var haproxyTCP = &product{
	name: "haproxy-tcp",
	replace: map[string]string{
		"bind :443":      "bind 127.0.0.1:<plain>",
		"127.0.0.1:8080": "<backend>",
		"inter 2s":       "inter 200ms",
		"check   5s":     "check   60s", // this machine may be busy
		"maxconn 100000": "maxconn 4096\n    stats socket <dir>/stats.sock",
	},
	command: haproxy.command,
	tcp:     true,
}

var haproxy = &product{
	name: "haproxy",
	replace: map[string]string{
		"maxconn 100000":        "maxconn 4096\n    stats socket <dir>/stats.sock",
		"bind :80\n":            "bind 127.0.0.1:<plain>\n",
		"bind :443 ssl":         "bind 127.0.0.1:<tls> ssl",
		"/etc/haproxy/site.pem": "<dir>/site.pem",
		"127.0.0.1:8080":        "<backend>",
		"client  60s":           "client  <timeout>",
		"server  60s":           "server  <timeout>",
		"tunnel  60s":           "tunnel  <timeout>",
		"check   5s":            "check   60s", // this machine may be busy
		"inter 2s":              "inter 200ms",
	},
	forwarded: "option forwardfor",
	reloaded:  "http-request set-header X-Reloaded yes",
	command: func(_, conf string, _ func(name, text string)) []string {
		return []string{"haproxy", "-W", "-f", conf}
	},
	reload: syscall.SIGUSR2, // as systemctl reload haproxy
}

// documented returns the configuration in docs/proxies.md.
func (p *product) documented(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/proxies.md")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(page), "```"+p.name+"\n")
	require.True(t, ok)
	block, _, ok := strings.Cut(rest, "```")
	require.True(t, ok)
	return block
}

// setup changes the documented configuration.
type setup struct {
	timeout string            // in place of 60s; empty for that
	replace map[string]string // further text to replace
}

// proxy is a running proxy. Safe for concurrent use.
type proxy struct {
	product *product
	dir     string
	conf    string // the configuration's file
	plain   target
	tls     target
	process *os.Process   // the parent of the workers
	ended   chan struct{} // closed when the process has ended
}

// start starts a proxy before the server at backend, until the end of the test.
func (p *product) start(t *testing.T, backend string, s setup) *proxy {
	t.Helper()
	id := identity()
	x := &proxy{product: p, dir: t.TempDir(), ended: make(chan struct{})}
	x.plain = target{host: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	x.tls = target{host: fmt.Sprintf("127.0.0.1:%d", freePort(t)), roots: id.roots}
	x.conf = filepath.Join(x.dir, p.name+".conf")
	if p.tcp {
		x.tls.host = x.plain.host
	}
	x.write(t, filepath.Join(x.dir, "site.pem"), id.pem)
	x.write(t, x.conf, x.configuration(t, backend, s))
	x.run(t)
	return x
}

// configuration returns the documented configuration with its replacements.
func (x *proxy) configuration(t *testing.T, backend string, s setup) string {
	t.Helper()
	conf := x.product.documented(t)
	for _, replace := range []map[string]string{x.product.replace, s.replace} {
		for old, text := range replace {
			require.Equal(t, 1, strings.Count(conf, old), "%q", old)
			conf = strings.Replace(conf, old, text, 1)
		}
	}
	if s.timeout == "" {
		s.timeout = "60s"
	}
	_, plain, _ := strings.Cut(x.plain.host, ":")
	_, tls, _ := strings.Cut(x.tls.host, ":")
	return strings.NewReplacer("<plain>", plain, "<tls>", tls, "<backend>", backend, "<dir>", x.dir,
		"<timeout>", s.timeout).Replace(conf)
}

func (x *proxy) write(t *testing.T, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
}

// run runs the process, and waits until it listens.
func (x *proxy) run(t *testing.T) {
	t.Helper()
	args := x.product.command(x.dir, x.conf, func(name, text string) { x.write(t, name, text) })
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that its workers can be killed with it
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	require.NoError(t, cmd.Start())
	x.process = cmd.Process
	go func() {
		defer close(x.ended)
		_ = cmd.Wait() // a signal has ended it
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it ends its workers, unless it has ended itself
		receive(t, x.ended)
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // those that are left
		if t.Failed() {
			t.Logf("%s:\n%s", x.product.name, output.String())
		}
	})
	for _, to := range []target{x.plain, x.tls} {
		eventually(t, func() bool {
			select {
			case <-x.ended:
				require.Fail(t, "the proxy has ended", output.String())
			default:
			}
			conn, err := net.Dial("tcp", to.host)
			if err != nil {
				return false
			}
			return conn.Close() == nil
		}, "the proxy does not listen")
	}
}

// nextPort is the port that is tried next.
var nextPort atomic.Uint32

func init() { nextPort.Store(10000 + mathrand.Uint32N(15000)) }

// freePort returns a port on which nobody listens. It is below the ports that the kernel gives to
// clients, so that none of them takes it before the proxy does.
func freePort(t *testing.T) uint32 {
	t.Helper()
	for range 1000 {
		port := nextPort.Add(1)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			require.NoError(t, l.Close())
			return port
		}
	}
	require.Fail(t, "no free port")
	return 0
}

// certificate is the identity of the proxies: a certificate that signs itself.
type certificate struct {
	pem   string // certificate and key
	roots *x509.CertPool
}

var identity = sync.OnceValue(func() certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:         true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(public)
	return certificate{pem: string(public) + string(private), roots: roots}
})
