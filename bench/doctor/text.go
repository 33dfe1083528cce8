package doctor

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// sysctl are the commands for one kernel setting, now and at each boot.
func sysctl(name, value, container string) []string {
	set := name + "=" + value
	if strings.Contains(value, " ") {
		set = name + `="` + value + `"`
	}
	commands := []string{
		"sysctl -w " + set,
		fmt.Sprintf("echo '%s = %s' >> /etc/sysctl.d/90-websocket.conf", name, value),
	}
	if container != "" {
		commands = append(commands, container)
	}
	return commands
}

const onHost = "# in a container: set it on the host (Kubernetes: on the node); it is not the container's own"

// inPod is the container's way to set one of its own network settings.
func inPod(name string, value int64) string {
	return fmt.Sprintf("docker run --sysctl %s=%d    # Kubernetes: securityContext.sysctls of the pod", name, value)
}

// amount is a limit for people.
func amount(n int64) string {
	switch n {
	case Unknown:
		return "?"
	case math.MaxInt64:
		return "unlimited"
	}
	return group(n)
}

// group is n with its digits in groups.
func group(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func triple(n [3]int64) string { return fmt.Sprintf("%d %d %d", n[0], n[1], n[2]) }

// size is a number of bytes for people.
func size(n int64) string {
	if n == Unknown {
		return "?"
	}
	value, unit := float64(n)/(1<<10), " KiB"
	for _, larger := range []string{" MiB", " GiB", " TiB"} {
		if value >= 1024 {
			value, unit = value/1024, larger
		}
	}
	return strings.TrimSuffix(strconv.FormatFloat(value, 'f', 1, 64), ".0") + unit
}
