//go:build linux

package contenders

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/qi-realtime/ws/bench/result"
)

// Ours is the name of this library among its peers.
const Ours = "ws"

// Contender is a library in a comparison.
type Contender struct {
	Name, Version string
	Serve         []string // see server.Options
	SingleWrites  bool     // of this library
}

// Options say which libraries are compared.
type Options struct{ Peers, peersBinary string }

// DefaultPeers returns the defaults of the flags.
func DefaultPeers() Options { return Options{Peers: "all"} }

// Flags declares the flags.
func (o *Options) Flags(fs *flag.FlagSet) {
	fs.StringVar(&o.Peers, "peers", o.Peers,
		"compare: `libraries` such as gorilla,gws, or all; burst: none, or all that have its handler")
	fs.StringVar(&o.peersBinary, "peers-binary", o.peersBinary,
		"compare, burst: the program built from bench/peers; else it is built")
}

// Contenders returns this library and the peers that -peers names.
func (o *Options) Contenders(ctx context.Context, binary string) ([]Contender, error) {
	all := []Contender{{Name: Ours, Version: result.Commit(ctx)}}
	out, err := exec.CommandContext(ctx, binary, "list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s list: %w", binary, err)
	}
	for line := range strings.Lines(string(out)) {
		if name, version, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
			all = append(all, Contender{Name: name, Version: version, Serve: []string{binary, "serve", name}})
		}
	}
	if o.Peers == "all" {
		return all, nil
	}
	chosen := all[:1:1]
	for name := range strings.SplitSeq(o.Peers, ",") {
		i := slices.IndexFunc(all, func(c Contender) bool { return c.Name == name })
		switch {
		case i < 0:
			return nil, fmt.Errorf("-peers: no library %q; %s list shows those that there are", name, binary)
		case i > 0:
			chosen = append(chosen, all[i])
		}
	}
	return chosen, nil
}

// Program returns the program of bench/peers, which it builds if need be.
func (o *Options) Program(ctx context.Context) (binary string, remove func(), err error) {
	return Build(ctx, "peers", o.peersBinary)
}

// Build returns the program of a module in the folder of bench, which it builds unless binary, the
// value of the flag -FOLDER-binary, is there already.
func Build(ctx context.Context, folder, binary string) (program string, remove func(), err error) {
	if binary != "" {
		program, err = filepath.Abs(binary)
		return program, func() {}, err
	}
	dir, err := folderOf(ctx, folder)
	if err != nil {
		return "", nil, err
	}
	temp, err := os.MkdirTemp("", "bench-"+folder+"-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(temp) }
	program = filepath.Join(temp, folder)
	build := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	build.Dir, build.Stderr, build.Env = dir, os.Stderr, append(os.Environ(), "GOWORK=off")
	if err := build.Run(); err != nil {
		remove()
		return "", nil, fmt.Errorf("go build in %s: %w; build it by hand and give -%s-binary", dir, err, folder)
	}
	return program, remove, nil
}

// folderOf finds a folder of bench: in the bench module, or near the working directory.
func folderOf(ctx context.Context, folder string) (string, error) {
	var dirs []string
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/qi-realtime/ws/bench").Output()
	if err == nil {
		dirs = append(dirs, filepath.Join(strings.TrimSpace(string(out)), folder))
	}
	for _, dir := range append(dirs, filepath.Join("bench", folder), folder) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("bench/%s is not found: run bench in its repository, or build that program and give -%s-binary",
		folder, folder)
}
