//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/qi-realtime/ws/bench/report"
)

// page is an HTML file that is being made: the file of this name stays as it
// was until all is written. The zero page writes nothing.
type page struct {
	name string
	tmp  *os.File
}

// createPage fails before a long run, not after it, if name cannot be written.
func createPage(name string) (*page, error) {
	if name == "" {
		return &page{}, nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".bench-*.html")
	if err != nil {
		return nil, fmt.Errorf("bench: -html: %w", err)
	}
	return &page{name, tmp}, nil
}

func (p *page) write(docs ...*report.Document) error {
	if p.tmp == nil {
		return nil
	}
	if err := report.HTML(p.tmp, docs...); err != nil {
		return fmt.Errorf("bench: -html: %w", err)
	}
	if err := p.tmp.Chmod(0o644); err != nil {
		return fmt.Errorf("bench: -html: %w", err)
	}
	if err := os.Rename(p.tmp.Name(), p.name); err != nil {
		return fmt.Errorf("bench: -html: %w", err)
	}
	return nil
}

// discard closes the file, and removes an incomplete one.
func (p *page) discard() {
	if p.tmp != nil {
		_ = p.tmp.Close()
		_ = os.Remove(p.tmp.Name())
	}
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// commandLine is args as they would be typed.
func commandLine(args []string) string {
	words := []string{"bench"}
	for _, arg := range args {
		if arg == "" || strings.ContainsAny(arg, " \t\n\"'\\$`*?[]{}()<>|&;#~!") {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}
