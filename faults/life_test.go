package faults

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// pace lets the line take so many bytes in each tenth of a second, until stop is called.
func pace(line *rig.Line, bytes int) (stop func()) {
	line.Limit(0)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-time.After(100 * time.Millisecond):
				line.Limit(bytes)
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

// TestFault58: a message that takes longer than the heartbeat is no sign of death, nor is
// a write that takes longer than the write timeout.
func TestFault58_SlowUpload(t *testing.T) {
	servers := map[string]func(testing.TB) *resocktest.Server{"ws": resocktest.NewMemory, "wss": resocktest.NewTLSMemory}
	for _, perSecond := range []int{24_000, 4_000} {
		for scheme, server := range servers {
			for _, interval := range []time.Duration{30 * time.Second, 0} {
				t.Run(fmt.Sprintf("%s %d %v", scheme, perSecond, interval), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						slowUpload(t, server(t), perSecond, resock.WithHeartbeat(interval, 10*time.Second))
					})
				})
			}
		}
	}
}

func slowUpload(t *testing.T, s *resocktest.Server, perSecond int, heartbeat resock.Option) {
	reach, lines := rig.ReachLines(s)
	r := rig.Start(t, s.URL, reach, heartbeat)
	r.Open()
	defer pace(<-lines, perSecond/10)()
	began := time.Now()
	if err := r.Send(t.Context(), resock.MessageBinary, make([]byte, 1<<20)); err != nil {
		t.Error(err)
	}
	if message, err := s.Accept().Read(); err != nil || len(message.Data) != 1<<20 {
		t.Errorf("the server got %d bytes, %v", len(message.Data), err)
	}
	rig.Within(t, began, time.Duration(1<<20/perSecond)*time.Second, time.Hour)
	r.Quiet(time.Hour)
}

// relay passes bytes on between its clients and a server, so many per second each way. It
// reads from its clients into a small buffer.
func relay(t *testing.T, address string, perSecond int) string {
	return rig.Listen(t, func(client net.Conn) {
		_ = client.(*net.TCPConn).SetReadBuffer(64 << 10)
		server, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		defer server.Close()
		pass := func(to, from net.Conn) {
			defer to.Close()
			buffer := make([]byte, perSecond/100)
			for {
				n, err := io.ReadFull(from, buffer[:1])
				if err == nil {
					more := 0
					more, err = from.Read(buffer[1:])
					n += more
				}
				if _, failed := to.Write(buffer[:n]); failed != nil || err != nil {
					return
				}
				<-time.After(time.Duration(n) * time.Second / time.Duration(perSecond))
			}
		}
		go pass(client, server)
		pass(server, client)
	})
}

// TestFault59: a ping behind megabytes in the buffers of the network is answered late,
// and bytes that the network takes are a sign of life. It needs the buffers of a kernel.
func TestFault59_PingBehindABacklog(t *testing.T) {
	const messages = 7500
	s := resocktest.NewServer(t)
	host := strings.TrimPrefix(s.URL, "ws://")
	r := rig.Quick(t, "ws://"+relay(t, host, 2_000_000), resock.WithQueue(messages, 16<<20),
		resock.WithHeartbeat(500*time.Millisecond, 500*time.Millisecond))
	r.Open()
	payload := make([]byte, 1<<10)
	for range messages {
		if err := r.Enqueue(resock.MessageBinary, payload); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Errorf("Flush: %v", err)
	}
	if n := len(s.Accept().Received().Messages); n != messages {
		t.Errorf("%d messages arrived", n)
	}
}

// A server that reads slowly and answers nothing lives while it makes room, also after it
// has got a beat, and no longer.
func TestRoomIsLife(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		const messages = 1000
		reach, lines := rig.ReachLines(s)
		r := rig.Start(t, s.URL, reach, resock.WithHeartbeat(time.Second, 2*time.Second), resock.WithMaxAttempts(1))
		c := s.Accept()
		c.IgnorePings()
		r.Open()
		defer pace(<-lines, 2_400)()
		for range messages {
			r.Queue(strings.Repeat("m", 1<<10))
		}
		for range messages {
			if _, err := c.Read(); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		if pings := len(c.Received().Pings); pings < 3 {
			t.Errorf("%d pings among the messages", pings)
		}
		if fail := r.Fail(resock.PhaseHeartbeat); fail.Next != resock.StateWaiting {
			t.Errorf("%+v after minutes of health", fail)
		}
		rig.Within(t, began, 0, 3*time.Second)
	})
}

// TestFault60: however soon the first beat is, a full interval follows.
func TestFault60_SlowRoundTrip(t *testing.T) {
	const interval = time.Second
	for range 30 { // the time of the first beat is random
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			r := rig.Reaching(t, s, resock.WithHeartbeat(interval, interval))
			c := s.Accept()
			c.IgnorePings()
			r.Open()
			for answered := 0; answered < 10; {
				time.Sleep(time.Millisecond)
				if pings := c.Received().Pings; len(pings) > answered {
					time.Sleep(300 * time.Millisecond)
					answered = len(c.Received().Pings)
					_ = c.Pong(string(c.Received().Pings[answered-1].Payload))
				}
			}
			if took, n := time.Since(r.Stats().Since), len(c.Received().Pings); n > int(took/interval)+1 {
				t.Errorf("%d pings in %v", n, took)
			}
		})
	}
}

// trickle is a connection that brings a few bytes at a time.
type trickle struct {
	net.Conn
	on *atomic.Bool
}

func (c trickle) Read(p []byte) (int, error) {
	if c.on.Load() {
		time.Sleep(20 * time.Millisecond)
		p = p[:min(len(p), 128)]
	}
	return c.Conn.Read(p)
}

// TestFault61: bytes of a TLS record that is not complete are signs of life.
func TestFault61_RecordTrickles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := resocktest.NewTLSMemory(t)
		var on atomic.Bool
		base := s.Client().Transport.(*http.Transport)
		transport := &http.Transport{
			TLSClientConfig: base.TLSClientConfig,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := base.DialContext(ctx, network, address)
				return trickle{conn, &on}, err
			},
		}
		r := rig.Start(t, s.URL, resock.WithHTTPClient(&http.Client{Transport: transport}), resock.WithHeartbeat(500*time.Millisecond, 500*time.Millisecond))
		c := s.Accept()
		c.IgnorePings()
		r.Open()
		large := strings.Repeat("l", 200<<10) // from here on crypto/tls makes records of 16 KiB
		_ = c.Push(large)
		r.Message(large)
		on.Store(true)
		_ = c.Push("ends the read that began before")
		r.Message("ends the read that began before")
		record := strings.Repeat("r", 12<<10)
		_ = c.Push(record)
		r.Message(record)
	})
}

// everySecond calls f until it fails or the connection has ended.
func everySecond(c *resocktest.Conn, f func() error) {
	for f() == nil {
		select {
		case <-time.After(time.Second):
		case <-c.Done():
			return
		}
	}
}

// TestFault63: what answers pings and tells nothing is a zombie.
func TestFault63_ZombieFeed(t *testing.T) {
	const idle = 30 * time.Second
	virtual := func(name string, test func(t *testing.T, s *resocktest.Server)) {
		t.Run(name, func(t *testing.T) { rig.Virtual(t, test) })
	}
	zombie := func(t *testing.T, r *rig.Client, since time.Time) {
		t.Helper()
		fail := r.Fail(resock.PhaseHeartbeat)
		if !errors.Is(fail.Err, resock.ErrHeartbeat) || !strings.Contains(fail.Err.Error(), "no message for 30s") {
			t.Errorf("%v", fail.Err)
		}
		rig.Within(t, since, idle, idle+idle/16)
	}
	virtual("pongs", func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithIdleTimeout(idle))
		c := s.Accept()
		r.Open()
		r.Quiet(29 * time.Second)
		_ = c.Push("tick")
		r.Message("tick")
		began := time.Now()
		if last := r.Stats().LastMessage; !last.Equal(began) {
			t.Errorf("LastMessage is %v, want %v", last, began)
		}
		zombie(t, r, began)
		if pings := len(c.Received().Pings); pings < 3 {
			t.Errorf("%d pings", pings)
		}
		if last := r.Stats().LastMessage; !last.Equal(began) {
			t.Errorf("after the session LastMessage is %v, want %v", last, began)
		}
	})
	virtual("pings", func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithIdleTimeout(idle), resock.WithHeartbeat(0, 0))
		c := s.Accept()
		r.Open()
		began := time.Now()
		go everySecond(c, func() error { return c.Ping("?") })
		zombie(t, r, began)
	})
	virtual("filtered messages", func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithIdleTimeout(idle), resock.WithFilter(func(_ context.Context, m resock.MessageEvent) bool {
			return string(m.Data) != "heartbeat"
		}))
		c := s.Accept()
		r.Open()
		began := time.Now()
		go everySecond(c, func() error { return c.Push("heartbeat") })
		zombie(t, r, began)
	})
	virtual("an unfinished message", func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithIdleTimeout(idle), resock.WithHeartbeat(0, 0))
		c := s.Accept()
		r.Open()
		payload := strings.Repeat("u", 20)
		for _, b := range resocktest.Frame(rig.Fin|rig.Text, []byte(payload)) {
			_ = c.Raw([]byte{b})
			time.Sleep(20 * time.Second)
		}
		r.Message(payload)
		_ = c.Raw(resocktest.Frame(rig.Text, []byte("a fragment")))
		began := time.Now()
		go everySecond(c, func() error { return c.Ping("?") }) // between fragments, but no part of the message
		zombie(t, r, began)
	})
	virtual("blocked delivery", func(t *testing.T, s *resocktest.Server) {
		handle := make(chan time.Duration, 1)
		r := rig.Reaching(t, s, resock.WithIdleTimeout(idle), resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { time.Sleep(<-handle) }))
		c := s.Accept()
		r.Open()
		_ = c.Push("takes an hour")
		handle <- time.Hour
		r.Quiet(time.Hour)
		zombie(t, r, time.Now())
	})
	virtual("a filter that takes its time", func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithIdleTimeout(idle), resock.WithFilter(func(context.Context, resock.MessageEvent) bool {
			time.Sleep(time.Minute)
			return false
		}))
		c := s.Accept()
		r.Open()
		r.Quiet(10 * time.Second)
		_ = c.Push("is kept")
		r.Quiet(time.Minute)
		zombie(t, r, time.Now().Add(-10*time.Second)) // that minute does not count
	})
}

// LastMessage is the time of the read that brought the message, not of its delivery.
func TestLastMessageIsOfTheRead(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { time.Sleep(time.Minute) }))
		c := s.Accept()
		r.Open()
		if last := r.Stats().LastMessage; !last.IsZero() {
			t.Errorf("%v before the first message", last)
		}
		began := time.Now()
		// The ping ends a burst, so that the second message is delivered for itself.
		_ = c.Raw(slices.Concat(resocktest.Frame(rig.Fin|rig.Text, []byte("one")), resocktest.Frame(rig.Fin|9, nil), resocktest.Frame(rig.Fin|rig.Text, []byte("two"))))
		r.Quiet(5 * time.Minute)
		if stats := r.Stats(); !stats.LastMessage.Equal(began) || stats.MessagesIn != 2 {
			t.Errorf("LastMessage of %d is %v, want %v", stats.MessagesIn, stats.LastMessage, began)
		}
	})
}

// TestFault64: the server pushes all the time, and drops clients that say nothing.
func TestFault64_ServerWantsToHear(t *testing.T) {
	const patience = 30 * time.Second
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s)
		c := s.Accept()
		r.Open()
		heard, at := 0, time.Now()
		for i := range 600 {
			time.Sleep(time.Second)
			if n := len(c.Received().Pings); n > heard {
				heard, at = n, time.Now()
			}
			if time.Since(at) > patience {
				t.Fatalf("nothing was heard from the client for %v", patience)
			}
			tick := fmt.Sprint("tick ", i)
			_ = c.Push(tick)
			r.Message(tick)
		}
		if heard < 39 || heard > 41 {
			t.Errorf("%d pings in 10 minutes, want one every 15 s", heard)
		}
	})
}

// What is sent to a dead server neither puts off the verdict nor hastens it, as long as
// the network takes it at once.
func TestSendsIntoSilence(t *testing.T) {
	const interval, timeout = 5 * time.Second, 3 * time.Second
	for range 20 {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			r := rig.Reaching(t, s, resock.WithHeartbeat(interval, timeout))
			c := s.Accept()
			c.IgnorePings()
			r.Open()
			_ = c.Push("the last word")
			r.Message("the last word")
			began := time.Now()
			done := make(chan struct{})
			go func() {
				defer close(done)
				for r.Stats().Session == 1 {
					_ = r.Enqueue(resock.MessageText, []byte("hello?"))
					time.Sleep(50 * time.Millisecond)
				}
			}()
			r.Fail(resock.PhaseHeartbeat)
			rig.Within(t, began, timeout, interval+timeout)
			if pings := c.Received().Pings; len(pings) == 0 || time.Since(pings[0].Time) != timeout {
				t.Errorf("not found %v after the first of %d pings", timeout, len(pings))
			}
			<-done
		})
	}
}

// Beats go out at their time under a handler that takes longer than it takes the messages
// to come.
func TestBeatsUnderASlowHandler(t *testing.T) {
	for _, beat := range []resock.Option{nil, resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { return resock.MessageText, []byte("beat") })} {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			opts := []resock.Option{
				resock.WithHeartbeat(4*time.Second, 3*time.Second), resock.WithIdleTimeout(time.Minute),
				resock.WithMessageHandler(func(ctx context.Context, _ resock.MessageEvent) {
					select {
					case <-time.After(10 * time.Second):
					case <-ctx.Done():
					}
				}),
			}
			if beat != nil {
				opts = append(opts, beat)
			}
			r := rig.Reaching(t, s, opts...)
			c := s.Accept()
			r.Open()
			go everySecond(c, func() error { return c.Push("push") })
			r.Quiet(10 * time.Minute)
			if got := c.Received(); len(got.Pings)+len(got.Messages) < 149 {
				t.Errorf("%d pings, %d messages in 10 minutes of 4 s intervals", len(got.Pings), len(got.Messages))
			}
		})
	}
}

// A server that pings, and answers no pings, lives.
func TestServerOnlyPings(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s)
		c := s.Accept()
		c.IgnorePings()
		r.Open()
		for range 100 {
			r.Quiet(9 * time.Second)
			_ = c.Ping("")
		}
	})
}

// A server that dictates the interval hears from the client in time, however long OnOpen
// takes after that.
func TestDictatedInterval(t *testing.T) {
	const interval = 8 * time.Second
	for range 20 {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			told := make(chan time.Time, 1)
			r := rig.Reaching(t, s, resock.WithHeartbeat(time.Hour, time.Minute),
				resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { return resock.MessageText, []byte("beat") }),
				resock.WithOnOpen(func(_ context.Context, session *resock.Session) error {
					err := session.SetHeartbeat(interval, 5*time.Second)
					told <- time.Now()
					time.Sleep(6 * time.Second)
					return err
				}))
			c := s.Accept()
			r.Open()
			at := <-told
			for range 10 {
				if _, err := c.Read(); err != nil || time.Since(at) > interval {
					t.Fatalf("%v, %v after the last beat", err, time.Since(at))
				}
				at = time.Now()
				_ = c.Push("heard")
				r.Message("heard")
			}
		})
	}
}

// Beats do not pile up behind a write that the network does not take.
func TestBeatsDoNotPileUp(t *testing.T) {
	for name, beat := range map[string][]resock.Option{
		"pings":    nil,
		"messages": {resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { return resock.MessageText, []byte("beat") })},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				reach, lines := rig.ReachLines(s)
				r := rig.Start(t, s.URL, append(beat, reach, resock.WithHeartbeat(time.Second, time.Second), resock.WithWriteTimeout(time.Hour))...)
				r.Open()
				c, line := s.Accept(), <-lines
				line.Limit(0)
				r.Queue("a message that waits")
				r.Quiet(10 * time.Minute)
				before := c.Received()
				line.Unlimit()
				synctest.Wait()
				if got := c.Received(); len(got.Pings)+len(got.Messages) > len(before.Pings)+len(before.Messages)+2 {
					t.Errorf("%d pings and %d messages at once", len(got.Pings), len(got.Messages))
				}
			})
		})
	}
}

// An application that dials TLS itself keeps what can be counted above it: a slow upload
// lives, and a silent server is found.
func TestOwnTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := resocktest.NewTLSMemory(t)
		base := s.Client().Transport.(*http.Transport)
		lines := make(chan *rig.Line, 10)
		transport := &http.Transport{DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := base.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			line := rig.NewLine(conn)
			lines <- line
			config := base.TLSClientConfig.Clone()
			config.ServerName = "server.test"
			return tls.Client(line, config), nil
		}}
		r := rig.Start(t, s.URL, resock.WithHTTPClient(&http.Client{Transport: transport}))
		r.Open()
		c := s.Accept()
		stop := pace(<-lines, 2_400)
		if err := r.Send(t.Context(), resock.MessageBinary, make([]byte, 1<<20)); err != nil {
			t.Error(err)
		}
		r.Quiet(time.Hour)
		stop()
		c.IgnorePings()
		began := time.Now()
		r.Fail(resock.PhaseHeartbeat)
		rig.Within(t, began, 0, 25*time.Second)
	})
}
