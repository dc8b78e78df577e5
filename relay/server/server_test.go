package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStartFails starts servers that cannot run, beside one that does.
func TestStartFails(t *testing.T) {
	dir := t.TempDir()
	s, err := Start(Config{Dir: dir, Addr: "127.0.0.1:0", NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	free := t.TempDir()
	for _, tt := range []struct {
		config Config
		want   string
	}{
		{Config{}, "server: Config.Dir is empty"},
		{Config{Dir: file}, "server: Config.Dir: "},
		{Config{Dir: dir}, "in use already"},
		{Config{Dir: free, Addr: "127.0.0.1"}, "server: Config.Addr: "},
		{Config{Dir: free, Addr: "127.0.0.1:nats"}, "want a number"},
		{Config{Dir: free, Addr: strings.TrimPrefix(s.URL(), "nats://")}, "Error listening on port"},
	} {
		other, err := Start(tt.config)
		if err == nil {
			other.Close()
			t.Errorf("%+v is taken", tt.config)
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.config, err, tt.want)
		}
	}
	startAndClose(t, free)
}

// TestStartAgain starts a server where another one has ended.
func TestStartAgain(t *testing.T) {
	dir := t.TempDir()
	startAndClose(t, dir)
	startAndClose(t, dir)
}

func startAndClose(t *testing.T, dir string) {
	t.Helper()
	s, err := Start(Config{Dir: dir, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Close()
}

// TestSync has the default that the documentation promises.
func TestSync(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		o, err := Config{Dir: "a", NoSync: noSync}.options()
		if err != nil || o.SyncAlways == noSync {
			t.Errorf("NoSync %t: each write is synced: %t, %v", noSync, o.SyncAlways, err)
		}
	}
}
