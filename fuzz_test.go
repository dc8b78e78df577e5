package resock

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/coder/websocket"
)

func FuzzRetryAfter(f *testing.F) {
	for _, value := range []string{
		"", "0", "120", " 7 ", "-1", "+5", "1.5", "1e3", "0x10", "9223372036", "9223372037", "99999999999999999999",
		"-99999999999999999999", "Wed, 21 Oct 2026 07:28:00 GMT", "Wednesday, 21-Oct-26 07:28:00 GMT",
		"Wed Oct 21 07:28:00 2026", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "soon",
	} {
		f.Add(value)
	}
	now := time.Date(2026, 10, 21, 7, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value string) {
		got := parseRetryAfter(value, now)
		if got < 0 {
			t.Errorf("%q: negative: %v", value, got)
		}
		if padded := parseRetryAfter(" "+value+"\t", now); padded != got {
			t.Errorf("%q: %v, with space around it %v", value, got, padded)
		}
		date, err := http.ParseTime(strings.TrimSpace(value))
		if later := parseRetryAfter(value, now.Add(time.Hour)); err == nil && later > got {
			t.Errorf("%q: %v, and an hour later %v", value, got, later)
		} else if err != nil && later != got {
			t.Errorf("%q is no date, and yet %v, and an hour later %v", value, got, later)
		}
		if err == nil && date.Before(now) && got != 0 {
			t.Errorf("%q lies in the past: %v", value, got)
		}
	})
}

// FuzzOptions: New returns a client or an OptionError, and a client that it
// returns can be closed.
func FuzzOptions(f *testing.F) {
	f.Add("ws://server.test", []byte{})
	f.Add("wss://user:secret@server.test:1/path?token=1", []byte{0, 10, 1, 20, 2, 30})
	f.Add("http://server.test", []byte{255})
	f.Add("ws://[::1%25eth0]:x#fragment", []byte{7, 0})
	for i := range byte(40) {
		f.Add("ws://server.test", []byte{i, 0, i, 3, i, 6})
	}
	f.Fuzz(func(t *testing.T, url string, choices []byte) {
		var opts []Option
		for ; len(choices) >= 2; choices = choices[2:] {
			opts = append(opts, anyOption(choices[0], choices[1]))
		}
		client, err := New(url, opts...)
		var bad *OptionError
		switch {
		case err == nil && client == nil, err != nil && client != nil:
			t.Fatalf("got %v and %v", client, err)
		case err != nil:
			if !errors.As(err, &bad) || bad.Option == "" || bad.Reason == "" {
				t.Errorf("got %v", err)
			}
			return
		}
		_ = client.Stats()
		if err := client.Close(StatusNormalClosure, url); err != nil {
			t.Error(err)
		}
		<-client.Done()
	})
}

// anyOption returns the option of that number, with a value that may be
// anything.
func anyOption(number, value byte) Option {
	d := []time.Duration{0, 1, -1, time.Second, time.Hour, 1<<63 - 1, -1 << 63}[value%7]
	n := []int{0, 1, -1, 100, math.MaxInt, math.MinInt}[value%6]
	isNil := value%2 == 0
	switch number % 22 {
	case 0:
		return WithDialTimeout(d)
	case 1:
		return WithHeartbeat(d, time.Second)
	case 2:
		return WithHeartbeat(time.Second, d)
	case 3:
		return WithIdleTimeout(d)
	case 4:
		return WithBackoff(d, time.Hour)
	case 5:
		return WithBackoff(1, d)
	case 6:
		return WithMaxAttempts(n)
	case 7:
		return WithStableAfter(d)
	case 8:
		return WithReadLimit(int64(n))
	case 9:
		return WithWriteTimeout(d)
	case 10:
		return WithQueue(n, 100)
	case 11:
		return WithQueue(100, n)
	case 12:
		return WithCloseTimeout(d)
	case 13:
		return WithMaxSessionAge(d)
	case 14:
		if isNil {
			return WithDialOptions(nil)
		}
		return WithDialOptions(&websocket.DialOptions{CompressionMode: websocket.CompressionMode(value), CompressionThreshold: n})
	case 15:
		return WithLogger(nil)
	case 16:
		if isNil {
			return WithMessageHandler(nil)
		}
		return WithMessageHandler(func(context.Context, MessageEvent) {})
	case 17:
		if isNil {
			return WithEndpoint(nil)
		}
		return WithEndpoint(func(context.Context, Attempt) (Endpoint, error) { return Endpoint{}, nil })
	case 18:
		if isNil {
			return WithBackoffPolicy(nil)
		}
		return WithBackoffPolicy(func() backoff.BackOff { return nil })
	case 19:
		if isNil {
			return WithHeartbeatMessage(nil)
		}
		return WithHeartbeatMessage(func() (MessageType, []byte) { return 0, nil })
	case 20:
		return []Option{WithOnOpen(nil), WithRetryPolicy(nil), WithDialLimiter(nil), WithNetwork(nil)}[value%4]
	}
	return nil
}
