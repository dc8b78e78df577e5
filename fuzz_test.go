package resock

import (
	"errors"
	"maps"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

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
	for i := range byte(len(everyOption) + 1) {
		f.Add("ws://server.test", []byte{i, 0, i, 3, i, 6})
		f.Add("ws://server.test", []byte{i, 1})
		f.Add("", []byte{i, 0x11, i, 0x33})
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

// anyOption returns the option of that number, with arguments that may be anything, or
// none at all.
func anyOption(number, value byte) Option {
	names := append(slices.Sorted(maps.Keys(everyOption)), "none")
	option := everyOption[names[int(number)%len(names)]]
	if option == nil {
		return nil
	}
	var args []reflect.Value
	for i := range reflect.TypeOf(option).NumIn() {
		args = append(args, anyArgument(reflect.TypeOf(option).In(i), value))
		value = value>>4 | value<<4
	}
	return makeOption(option, args)
}

func anyArgument(typ reflect.Type, value byte) reflect.Value {
	n := []int64{0, 1, -1, 100, int64(time.Second), math.MaxInt64, math.MinInt64}[value%7]
	switch {
	case isNumber(typ):
		return reflect.ValueOf(n).Convert(typ)
	case isNillable(typ) && value%2 == 0:
		return reflect.Zero(typ)
	case typ == reflect.TypeFor[*websocket.DialOptions]():
		return reflect.ValueOf(&websocket.DialOptions{
			Subprotocols:         anyNames(value),
			CompressionMode:      websocket.CompressionMode(value % 5),
			CompressionThreshold: int(n),
		})
	case typ == reflect.TypeFor[[]string]():
		return reflect.ValueOf(anyNames(value))
	default:
		return usableArgument(typ)
	}
}

func anyNames(value byte) []string {
	return [][]string{nil, {"a", "b"}, {"a", "a"}, {""}, {"a b"}}[value%5]
}
