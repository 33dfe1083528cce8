// Package race reports whether the race detector is part of the build. Only tests use it.
package race
