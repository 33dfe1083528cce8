package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Machine describes the machine and the program that made the numbers.
type Machine struct {
	CPU        string            `json:"cpu"`
	CPUs       int               `json:"cpus"`
	Kernel     string            `json:"kernel"`
	Go         string            `json:"go"`
	GOMAXPROCS int               `json:"gomaxprocs"`
	Server     int               `json:"server_gomaxprocs"`
	Commit     string            `json:"commit"`
	Load       string            `json:"load_average"`
	Modules    map[string]string `json:"modules"` // path to version
}

// Lines are the machine in words.
func (m *Machine) Lines() []string {
	lines := []string{
		fmt.Sprintf("%s, %d CPUs, Linux %s, load %s before the run", m.CPU, m.CPUs, m.Kernel, m.Load),
		fmt.Sprintf("%s, GOMAXPROCS %d (server) and %d (load generator), commit %s", m.Go, m.Server, m.GOMAXPROCS, m.Commit),
	}
	var modules []string
	for _, path := range slices.Sorted(maps.Keys(m.Modules)) {
		_, name, _ := strings.Cut(path, "/") // without the host
		modules = append(modules, name+" "+m.Modules[path])
	}
	if len(modules) > 0 {
		lines = append(lines, strings.Join(modules, ", "))
	}
	return lines
}
