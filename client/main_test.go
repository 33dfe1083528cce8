package client_test

import (
	"testing"

	"github.com/qi-realtime/ws/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }
