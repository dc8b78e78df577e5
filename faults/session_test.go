package faults

import (
	"bytes"

	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/coder/websocket"
	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

func TestFault17_AcceptsThenDrops(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) { c.Drop() })
		r := rig.Reaching(t, s, resock.WithBackoff(time.Second, time.Minute), resock.WithStableAfter(5*time.Second))
		longest := time.Duration(0)
		for session := 1; session <= 40; session++ {
			r.Open()
			fail := r.Fail(resock.PhaseRead)
			if bound := min(time.Minute, time.Second<<min(session-1, 10)); fail.RetryIn > bound {
				t.Errorf("session %d: retry in %v, want at most %v", session, fail.RetryIn, bound)
			}
			longest = max(longest, fail.RetryIn)
		}
		if longest < 30*time.Second {
			t.Errorf("the longest of 40 delays was %v, want the backoff to grow beyond 30s", longest)
		}
	})
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) { c.Drop() })
		policy := &countingPolicy{BackOff: backoff.NewConstantBackOff(time.Second)}
		r := rig.Reaching(t, s, resock.WithBackoffPolicy(func() backoff.BackOff { return policy }))
		for range 10 {
			r.Open()
			r.Fail(resock.PhaseRead)
		}
		if policy.resets != 0 {
			t.Errorf("the policy was reset %d times by sessions that never became stable, want never", policy.resets)
		}
	})
}

type countingPolicy struct {
	backoff.BackOff
	resets int
}

func (p *countingPolicy) Reset() { p.resets++ }

func TestFault18_FINBetweenMessages(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) {
			_ = c.Push("whole")
			c.Drop()
		})
		r := rig.Reaching(t, s)
		r.Open()
		r.Message("whole")
		if fail := r.Fail(resock.PhaseRead); !errors.Is(fail.Err, io.EOF) {
			t.Errorf("got %v, want io.EOF", fail.Err)
		}
	})
}

// truncations returns messages that were cut off, by the place of the cut.
func truncations() map[string][]byte {
	whole := resocktest.Frame(rig.Fin|rig.Binary, bytes.Repeat([]byte("x"), 1000))
	fragment := resocktest.Frame(rig.Text, []byte("half of "))
	deflated := rig.Deflate(bytes.Repeat([]byte("deflate"), 1000), false)
	return map[string][]byte{
		"in the header":    whole[:1],
		"after the header": whole[:4],
		"mid payload":      whole[:512],
		"mid fragment":     slices.Concat(fragment, resocktest.Frame(rig.Fin, []byte("message"))[:4]),
		"after a fragment": fragment,
		"mid deflate":      resocktest.Frame(rig.Fin|rig.RSV1|2, deflated)[:20],
	}
}

func TestFault19_FINMidMessage(t *testing.T) {
	testTruncations(t, (*resocktest.Conn).Drop)
}

func TestFault20_RST(t *testing.T) {
	testTruncations(t, (*resocktest.Conn).Reset)
	t.Run("after a message", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			r := rig.Reaching(t, s)
			c := s.Accept()
			r.Open()
			_ = c.Push("whole")
			r.Message("whole")
			c.Reset()
			r.Fail(resock.PhaseRead)
		})
	})
}

func testTruncations(t *testing.T, end func(*resocktest.Conn)) {
	for name, part := range truncations() {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Script(rig.Compressed(func(c *resocktest.Conn) {
					_ = c.Raw(part)
					end(c)
				}))
				r := rig.Reaching(t, s, rig.ReachCompressed(s))
				for range 2 {
					r.Open()
					r.Fail(resock.PhaseRead)
				}
			})
		})
	}
}

func TestFault21_BlackHoleIdle(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithHeartbeat(20*time.Second, 10*time.Second))
		c := s.Accept()
		r.Open()
		time.Sleep(time.Hour) // while pongs arrive
		c.StopReading()
		c.IgnorePings()
		silent := time.Now()
		if fail := r.Fail(resock.PhaseHeartbeat); !errors.Is(fail.Err, resock.ErrHeartbeat) {
			t.Errorf("got %+v, want ErrHeartbeat", fail)
		}
		if took := time.Since(silent); took > 30*time.Second+time.Millisecond {
			t.Errorf("detected after %v, want at most 30s, interval + timeout", took)
		}
	})
}

func TestFault22_BlackHoleWithSends(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithHeartbeat(20*time.Second, 10*time.Second), resock.WithWriteTimeout(5*time.Second))
		c := s.Accept()
		r.Open()
		c.StopReading()
		const messages = 300
		outcomes := make([]<-chan error, messages)
		for i := range outcomes {
			outcomes[i] = r.Queue(fmt.Sprintf("%03d %s", i, strings.Repeat("x", 1000)))
		}
		if fail := r.Next().(resock.FailEvent); fail.Phase != resock.PhaseWrite {
			t.Errorf("got %+v, want the write timeout", fail)
		}
		second := s.Accept()
		r.Open()
		synctest.Wait()
		arrived := map[int]bool{}
		last := -1
		for _, message := range second.Received().Messages {
			var i int
			_, _ = fmt.Sscanf(string(message.Data), "%d", &i)
			if i <= last {
				t.Errorf("message %d arrived after message %d", i, last)
			}
			last = i
			arrived[i] = true
		}
		counts := map[string]int{}
		for i, outcome := range outcomes {
			err := <-outcome
			switch {
			case err == nil && !arrived[i]:
				counts["on the first connection"]++ // handed to the network
			case err == nil:
				counts["on the second"]++
			case errors.Is(err, resock.ErrMaybeSent) && !arrived[i]:
				counts["maybe"]++
			default:
				t.Errorf("message %d: %v, arrived: %t", i, err, arrived[i])
			}
		}
		if counts["maybe"] == 0 || counts["maybe"] > 70 || counts["on the second"] < 100 {
			t.Errorf("outcomes %v, want 1 to 70 maybe, and at least 100 on the second", counts)
		}
	})
}

func TestFault23_PeerRestarted(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s)
		c := s.Accept()
		r.Open()
		c.Reset() // as a restarted host does when it receives our next segment
		r.Fail(resock.PhaseRead)
		r.Open()
	})
}

func TestFault24_HalfClose(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s)
		c := s.Accept()
		r.Open()
		_ = c.HalfClose()
		r.Fail(resock.PhaseRead)
		if err := <-r.Queue("after the fail"); err != nil {
			t.Errorf("the message after the FailEvent: got %v, want nil", err)
		}
		synctest.Wait()
		if n := len(c.Received().Messages); n != 0 {
			t.Errorf("%d messages arrived on the failed connection, want none", n)
		}
		if conns := s.Conns(); len(conns) != 2 || len(conns[1].Received().Messages) != 1 {
			t.Errorf("the message did not arrive on the second of %d connections", len(conns))
		}
		r.Open()
	})
}

func TestFault25_NoPongsButData(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithHeartbeat(2*time.Second, 3*time.Second))
		c := s.Accept()
		c.IgnorePings()
		r.Open()
		for range 1000 {
			time.Sleep(2500 * time.Millisecond) // after a ping, before the timeout
			_ = c.Push("data")
			r.Message("data")
		}
		if pings := len(c.Received().Pings); pings < 500 {
			t.Errorf("%d pings in 1000 silences, want at least 500", pings)
		}
	})
}

func TestFault26_PongBehindASlowFrame(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithHeartbeat(5*time.Second, 3*time.Second))
		c := s.Accept()
		c.IgnorePings() // a pong would have to wait for the end of the frame
		r.Open()
		payload := strings.Repeat("y", 100_000)
		frame := resocktest.Frame(rig.Fin|rig.Text, []byte(payload))
		for len(frame) > 0 { // some bytes every two seconds, for minutes
			part := frame[:min(1000, len(frame))]
			frame = frame[len(part):]
			_ = c.Raw(part)
			time.Sleep(2 * time.Second)
		}
		r.Message(payload)
	})
}

func TestFault27_SlowConsumer(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithHeartbeat(5*time.Second, 3*time.Second))
		c := s.Accept()
		r.Open()
		const messages = 2000
		go func() {
			for i := range messages {
				_ = c.Push(fmt.Sprintf("%d %s", i, strings.Repeat("z", 1000)))
			}
		}()
		for i := range messages {
			if i%100 == 0 {
				time.Sleep(time.Minute)
				if i > 0 && i < messages/2 && r.Stats().BlockedSince.IsZero() {
					t.Error("BlockedSince is zero while delivery is blocked")
				}
			}
			message, ok := r.Next().(resock.MessageEvent)
			if !ok || !strings.HasPrefix(string(message.Data), fmt.Sprintf("%d ", i)) {
				t.Fatalf("message %d: got %.20q", i, message.Data)
			}
		}
	})
}

func TestFault28_StoppedConsumer(t *testing.T) {
	for name, opts := range map[string][]resock.SubscribeOption{
		"buffered":    nil,
		"unbuffered":  {resock.WithBuffer(0)},
		"drop oldest": {resock.WithBuffer(1), resock.WithOverflow(resock.OverflowDropOldest)},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Handle(func(c *resocktest.Conn) {
					for c.Push("more") == nil {
						time.Sleep(time.Millisecond)
					}
				})
				client, err := resock.New(s.URL, rig.QuickOptions(rig.Reach(s))...)
				if err != nil {
					t.Fatal(err)
				}
				events := client.Subscribe(context.Background(), opts...)
				done := make(chan error, 1)
				go func() { done <- client.Run(context.Background()) }()
				time.Sleep(time.Minute)
				started := time.Now()
				_ = client.Close(resock.StatusNormalClosure, "")
				if err := <-done; err != nil {
					t.Errorf("Run: got %v, want nil", err)
				}
				if took := time.Since(started); took > time.Second {
					t.Errorf("closing took %v, want at most 1s", took)
				}
				for range (&grammar.Checker{Cut: true}).All(t, events) { // the channel is closed
				}
			})
		})
	}
}

func TestFault29_ServerDoesNotRead(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithWriteTimeout(10*time.Second), resock.WithHeartbeat(0, 0))
		c := s.Accept()
		r.Open()
		c.StopReading()
		large := make(chan error, 1)
		go func() {
			large <- r.Send(context.Background(), resock.MessageBinary, make([]byte, 1<<20))
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		started := time.Now()
		if err := r.Send(ctx, resock.MessageText, []byte("waits")); !errors.Is(err, resock.ErrNotSent) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the waiting Send: got %v, want ErrNotSent and DeadlineExceeded", err)
		}
		if took := time.Since(started); took != time.Second {
			t.Errorf("the waiting Send returned after %v, want 1s, as its context says", took)
		}
		if err := <-large; !errors.Is(err, resock.ErrMaybeSent) {
			t.Errorf("the Send in progress: got %v, want ErrMaybeSent", err)
		}
		if took := time.Since(started); took > 10*time.Second+time.Millisecond {
			t.Errorf("the session ended after %v, want at most the write timeout of 10s", took)
		}
		r.Fail(resock.PhaseWrite)
	})
}

func TestFault30_PingDuringABlockedWrite(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithWriteTimeout(time.Minute), resock.WithHeartbeat(0, 0))
		c := s.Accept()
		r.Open()
		c.StopReading()
		sent := make(chan error, 1)
		go func() {
			sent <- r.Send(context.Background(), resock.MessageBinary, make([]byte, 1<<20))
		}()
		for range 30 {
			_ = c.Ping("are you there?")
			time.Sleep(time.Second)
		}
		c.StartReading()
		if err := <-sent; err != nil {
			t.Errorf("a Send blocked for 30s while pings arrived: got %v, want nil", err)
		}
		if n := len(s.Conns()); n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
		synctest.Wait()
		if n := len(c.Received().Pongs); n != 30 {
			t.Errorf("%d pongs, want 30", n)
		}
	})
}

func TestFault31_PingFlood(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithWriteTimeout(time.Hour), resock.WithHeartbeat(0, 0))
		c := s.Accept()
		r.Open()
		c.StopReading()
		before := rig.Heap()
		pings := bytes.Repeat(resocktest.Frame(rig.Fin|9, bytes.Repeat([]byte("p"), 125)), 100)
		for range 500 {
			_ = c.Raw(pings)
		}
		synctest.Wait()
		if grown := rig.Heap() - before; grown > 1<<20 {
			t.Errorf("the heap grew by %d KiB for 50,000 pings, want at most 1024", grown>>10)
		}
	})
}

func TestFault32_BadFrames(t *testing.T) {
	for name, raw := range map[string][]byte{
		"fragmented ping":     resocktest.Frame(9, nil),
		"long ping":           resocktest.Frame(rig.Fin|9, make([]byte, 126)),
		"RSV1":                resocktest.Frame(rig.Fin|rig.RSV1|rig.Text, []byte("x")),
		"RSV2":                resocktest.Frame(rig.Fin|0x20|rig.Text, []byte("x")),
		"RSV3 on a ping":      resocktest.Frame(rig.Fin|0x10|9, nil),
		"opcode 3":            resocktest.Frame(rig.Fin|3, nil),
		"opcode 15":           resocktest.Frame(rig.Fin|15, nil),
		"lone continuation":   resocktest.Frame(rig.Fin, []byte("x")),
		"two messages in one": slices.Concat(resocktest.Frame(rig.Text, []byte("x")), resocktest.Frame(rig.Fin|rig.Text, []byte("y"))),
	} {
		t.Run(name, func(t *testing.T) { rig.Violation(t, resock.StatusProtocolError, raw) })
	}
}

func TestFault33_EndlessContinuations(t *testing.T) {
	empty := bytes.Repeat(resocktest.Frame(0, nil), 1000)
	rig.Violation(t, resock.StatusProtocolError, slices.Concat(resocktest.Frame(rig.Text, []byte("x")), empty))
}

func TestFault34_HugeLengths(t *testing.T) {
	header := func(length uint64) []byte {
		return binary.BigEndian.AppendUint64([]byte{rig.Fin | rig.Binary, 127}, length)
	}
	before := rig.Heap()
	rig.Violation(t, resock.StatusProtocolError, header(1<<63))
	rig.Violation(t, websocket.StatusMessageTooBig, header(1<<40))
	rig.Violation(t, websocket.StatusMessageTooBig, header(1<<63-1))
	if grown := rig.Heap() - before; grown > 1<<20 {
		t.Errorf("the heap grew by %d KiB for frame headers alone, want at most 1024", grown>>10)
	}
}

func TestFault35_Oversized(t *testing.T) {
	large := make([]byte, 1001)
	limit := resock.WithReadLimit(1000)
	t.Run("one frame", func(t *testing.T) {
		rig.Violation(t, websocket.StatusMessageTooBig, resocktest.Frame(rig.Fin|rig.Binary, large), limit)
	})
	t.Run("fragments", func(t *testing.T) {
		rig.Violation(t, websocket.StatusMessageTooBig, slices.Concat(resocktest.Frame(2, large[:600]), resocktest.Frame(rig.Fin, large[:401])), limit)
	})
	t.Run("poison loop", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Handle(func(c *resocktest.Conn) { _ = c.PushBinary(large) })
			r := rig.Reaching(t, s, limit)
			for session := 1; session <= 50; session++ {
				r.Open()
				fail := r.Fail(resock.PhaseProtocol)
				if slow := fail.RetryIn >= 50*time.Millisecond; session > 1 && !slow {
					t.Errorf("session %d: retry in %v, want a slow retry", session, fail.RetryIn)
				}
				if fail.Next != resock.StateWaiting {
					t.Errorf("session %d: next is %v, want waiting", session, fail.Next)
				}
			}
		})
	})
}

func TestFault36_CompressionBomb(t *testing.T) {
	bomb := resocktest.Frame(rig.Fin|rig.RSV1|2, rig.Deflate(make([]byte, 100<<20), false))
	t.Run("off by default", func(t *testing.T) { rig.Violation(t, resock.StatusProtocolError, bomb) })
	for name, tt := range map[string]struct {
		raw     []byte
		message string // delivered, if any
	}{
		"bomb":        {bomb, ""},
		"final block": {resocktest.Frame(rig.Fin|rig.RSV1|rig.Text, rig.Deflate([]byte("hello"), true)), "hello"},
		"garbage":     {resocktest.Frame(rig.Fin|rig.RSV1|rig.Text, bytes.Repeat([]byte{0xff}, 20)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Script(rig.Compressed(func(c *resocktest.Conn) { _ = c.Raw(tt.raw) }))
				before := rig.Heap()
				r := rig.Reaching(t, s, rig.ReachCompressed(s))
				r.Open()
				if tt.message != "" {
					r.Message(tt.message)
					return
				}
				r.Fail(resock.PhaseProtocol)
				if grown := rig.Heap() - before; grown > 8<<20 {
					t.Errorf("the heap grew by %d KiB, want at most 8192", grown>>10)
				}
			})
		})
	}
}

func TestFault37_InvalidUTF8(t *testing.T) {
	masked := []byte{rig.Fin | rig.Text, 0x80 | 2, 1, 2, 3, 4, 'h' ^ 1, 'i' ^ 2}
	closing := func(reason string) []byte { return append([]byte{0x03, 0xe8}, reason...) }
	for name, tt := range map[string]struct {
		code resock.StatusCode
		raw  []byte
	}{
		"text":             {1007, resocktest.Frame(rig.Fin|rig.Text, []byte("a\xffb"))},
		"unfinished text":  {1007, resocktest.Frame(rig.Fin|rig.Text, []byte("a\xe2\x82"))},
		"across fragments": {1007, slices.Concat(resocktest.Frame(rig.Text, []byte("a\xe2\x82")), resocktest.Frame(rig.Fin, []byte("b")))},
		"mid frame":        {1007, resocktest.Frame(rig.Fin|rig.Text, []byte("a\xff"+strings.Repeat("b", 5000)))[:10]},
		"mid fragment":     {1007, resocktest.Frame(rig.Text, []byte("a\xff"+strings.Repeat("b", 5000)))[:10]},
		"close reason":     {1007, resocktest.Frame(rig.Fin|8, closing("a\xff"))},
		"masked":           {1002, masked},
	} {
		t.Run(name, func(t *testing.T) { rig.Violation(t, tt.code, tt.raw) })
	}
}

func TestFault38_CloseCodes(t *testing.T) {
	for _, code := range []resock.StatusCode{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		t.Run(fmt.Sprint(int(code)), func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				r := rig.Reaching(t, s)
				c := s.Accept()
				r.Open()
				_ = c.Close(code, "because")
				e := r.Closed(code, "because", true)
				spread := 1
				switch code {
				case 1012, 1013:
					spread = 2
				case 1008:
					spread = 5
				}
				if e.Next != resock.StateWaiting || e.RetryIn > time.Duration(spread)*20*time.Millisecond || code == 1008 && e.RetryIn < 50*time.Millisecond {
					t.Errorf("got %+v, want a retry as the policy has it for %d", e, code)
				}
				<-c.Done()
				if echo := c.Received().Close; echo == nil || echo.Code != code {
					t.Errorf("the server received the close frame %+v, want code %d", echo, code)
				}
			})
		})
	}
	t.Run("empty", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			r := rig.Reaching(t, s)
			c := s.Accept()
			r.Open()
			_ = c.Raw(resocktest.Frame(rig.Fin|8, nil))
			r.Closed(websocket.StatusNoStatusRcvd, "", true)
		})
	})
}

func TestFault39_IllegalClose(t *testing.T) {
	for _, code := range []uint16{0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			rig.Violation(t, resock.StatusProtocolError, resocktest.Frame(rig.Fin|8, binary.BigEndian.AppendUint16(nil, code)))
		})
	}
	t.Run("one byte", func(t *testing.T) {
		rig.Violation(t, resock.StatusProtocolError, resocktest.Frame(rig.Fin|8, []byte{3}))
	})
}

// TestFault83 sends the same frame in each session: no such server is given up.
func TestFault83_OddCloseFrames(t *testing.T) {
	const none resock.StatusCode = -1
	payload := func(code uint16, reason string) []byte {
		return append(binary.BigEndian.AppendUint16(nil, code), reason...)
	}
	for name, tt := range map[string]struct {
		payload []byte
		code    resock.StatusCode
		reason  string
	}{
		"0":           {payload(0, "because"), 0, "because"},
		"999":         {payload(999, "because"), 999, "because"},
		"1004":        {payload(1004, "because"), 1004, "because"},
		"1005":        {payload(1005, ""), 1005, ""},
		"1006":        {payload(1006, "abnormal"), 1006, "abnormal"},
		"1015":        {payload(1015, "because"), 1015, "because"},
		"2001":        {payload(2001, "because"), 2001, "because"},
		"65535":       {payload(65535, "because"), 65535, "because"},
		"odd reason":  {payload(2001, "a\xffb"), 2001, "a\uFFFDb"},
		"one byte":    {[]byte{3}, none, ""},
		"a long one":  {payload(999, strings.Repeat("x", 123)), 999, strings.Repeat("x", 123)},
		"no text":     {payload(999, "\x00\n"), 999, "\x00\n"},
		"whole frame": {payload(0, "\x03\xe8"), 0, "\x03\uFFFD"},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Handle(func(c *resocktest.Conn) { _ = c.Raw(resocktest.Frame(rig.Fin|8, tt.payload)) })
				reasons := make(chan string, 1)
				r := rig.Reaching(t, s, resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
					reasons <- f.Reason
					return resock.DefaultRetryPolicy(f)
				}))
				for session := range 10 {
					c := s.Accept()
					r.Open()
					fail := r.Fail(resock.PhaseProtocol)
					var protocol *resock.ProtocolError
					if !errors.As(fail.Err, &protocol) || protocol.Code != resock.StatusProtocolError {
						t.Errorf("%v, want a ProtocolError with code 1002", fail.Err)
					}
					var came websocket.CloseError
					if is := errors.As(fail.Err, &came); is != (tt.code != none) || is && (came.Code != tt.code || came.Reason != tt.reason) {
						t.Errorf("%v, want %d %q", fail.Err, tt.code, tt.reason)
					}
					if told := <-reasons; told != tt.reason {
						t.Errorf("the policy was told the reason %q", told)
					}
					if slow := fail.RetryIn >= 50*time.Millisecond; fail.Next != resock.StateWaiting || session > 0 && !slow {
						t.Errorf("session %d: next is %v in %v", session+1, fail.Next, fail.RetryIn)
					}
					<-c.Done()
					if closed := c.Received().Close; closed == nil || closed.Code != resock.StatusProtocolError {
						t.Errorf("the server got the close frame %+v", closed)
					}
				}
			})
		})
	}
}

func TestFault40_DataAndCloseTogether(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s)
		c := s.Accept()
		r.Open()
		_ = c.Raw(slices.Concat(
			resocktest.Frame(rig.Fin|rig.Text, []byte("first")),
			resocktest.Frame(rig.Text, []byte("sec")), resocktest.Frame(rig.Fin, []byte("ond")),
			resocktest.Frame(rig.Fin|8, []byte("\x03\xe8bye")),
			resocktest.Frame(rig.Fin|rig.Text, []byte("after the close")),
		))
		r.Message("first")
		r.Message("second")
		r.Closed(1000, "bye", true)
	})
}

// OnPingReceived decides which pings are answered. It may keep their payload, and take
// longer than the heartbeat timeout.
func TestOnPingReceived(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		var seen [][]byte
		r := rig.Reaching(t, s, resock.WithHeartbeat(0, 0), resock.WithDialOptions(&websocket.DialOptions{
			HTTPClient: s.Client(),
			OnPingReceived: func(_ context.Context, payload []byte) bool {
				seen = append(seen, payload)
				time.Sleep(6 * time.Second)
				return string(payload) != "no"
			},
		}))
		c := s.Accept()
		r.Open()
		for _, payload := range []string{"one", "no", "two"} {
			_ = c.Ping(payload)
		}
		_ = c.Push("still here")
		r.Message("still here")
		synctest.Wait()
		var pongs []string
		for _, pong := range c.Received().Pongs {
			pongs = append(pongs, string(pong.Payload))
		}
		if got, asked := fmt.Sprint(pongs), fmt.Sprintf("%s", seen); got != "[one two]" || asked != "[one no two]" {
			t.Errorf("pongs %v after pings %s, want [one two] after [one no two]", got, asked)
		}
	})
}

// The context of a ping or pong hook ends with the connection, so that a hook which
// waits for something else cannot delay closing.
func TestHookContextEndsWithTheConnection(t *testing.T) {
	for _, ping := range []bool{true, false} {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			entered := make(chan struct{}, 1)
			wait := func(ctx context.Context, _ []byte) {
				entered <- struct{}{}
				select {
				case <-ctx.Done():
				case <-time.After(time.Hour):
					t.Error("the context of the hook did not end within an hour")
				}
			}
			r := rig.Reaching(t, s, resock.WithHeartbeat(0, 0), resock.WithDialOptions(&websocket.DialOptions{
				HTTPClient:     s.Client(),
				OnPingReceived: func(ctx context.Context, payload []byte) bool { wait(ctx, payload); return true },
				OnPongReceived: wait,
			}))
			c := s.Accept()
			r.Open()
			if ping {
				_ = c.Ping("")
			} else {
				_ = c.Pong("")
			}
			<-entered
		})
	}
}
