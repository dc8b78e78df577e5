package faults

import (
	"context"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// TestSocketOptions reads back what the kernel is told about the socket of a session.
func TestSocketOptions(t *testing.T) {
	const userTimeout, notSentLimit = 0x12, 0x19 // of <linux/tcp.h>
	for name, tt := range map[string]struct {
		opts []resock.Option
		want int // milliseconds that bytes may be unacknowledged
	}{
		"defaults":             {nil, 25_000},
		"a long write timeout": {[]resock.Option{resock.WithWriteTimeout(time.Minute)}, 60_000},
		"a short heartbeat":    {[]resock.Option{resock.WithHeartbeat(2*time.Second, time.Second), resock.WithWriteTimeout(time.Second)}, 3_000},
		"no heartbeat":         {[]resock.Option{resock.WithHeartbeat(0, 0)}, 0},
		"of the session": {[]resock.Option{resock.WithOnOpen(func(_ context.Context, s *resock.Session) error {
			return s.SetHeartbeat(20*time.Second, 10*time.Second)
		})}, 30_000},
	} {
		t.Run(name, func(t *testing.T) {
			dialed := make(chan *net.TCPConn, 1)
			dial := func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				if err == nil {
					dialed <- conn.(*net.TCPConn)
				}
				return conn, err
			}
			s := resocktest.NewServer(t)
			r := rig.Start(t, s.URL, append(tt.opts, resock.WithHTTPClient(&http.Client{Transport: &http.Transport{DialContext: dial}}))...)
			r.Open()
			if err := r.Send(t.Context(), resock.MessageText, []byte("x")); err != nil {
				t.Fatal(err)
			}
			if err := r.Flush(t.Context()); err != nil { // answered when the session has begun
				t.Fatal(err)
			}
			raw, err := (<-dialed).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			unacknowledged, unsent := 0, 0
			_ = raw.Control(func(fd uintptr) {
				unacknowledged, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, userTimeout)
				unsent, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, notSentLimit)
			})
			if unacknowledged != tt.want || unsent != 16<<10 {
				t.Errorf("unacknowledged for %d ms, %d bytes unsent; want %d ms and 16 KiB", unacknowledged, unsent, tt.want)
			}
		})
	}
}
