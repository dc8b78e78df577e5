package main

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/resock/resock"
)

const redrawEvery = 100 * time.Millisecond

// status makes the status line.
type status struct {
	client *resock.Client
	screen *screen

	samples []resock.Stats // of the last second, oldest first
	times   []time.Time

	mu      sync.Mutex
	next    time.Time // when the next attempt is due
	attempt int       // which failed last
}

func (s *status) opened() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempt = 0
}

// waits notes when the next attempt is due, and the number of the one that failed.
func (s *status) waits(due time.Time, attempt int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next, s.attempt = due, attempt
}

// run draws the status line until the screen is closed.
func (s *status) run() {
	for ticker := time.NewTicker(redrawEvery); ; <-ticker.C {
		now := time.Now()
		s.sample(now)
		if !s.screen.setStatus(func(width int) string { return s.text(now, width) }) {
			ticker.Stop()
			return
		}
	}
}

// sample keeps what is needed for the rates of the last second.
func (s *status) sample(now time.Time) {
	s.samples, s.times = append(s.samples, s.client.Stats()), append(s.times, now)
	if len(s.samples) > int(time.Second/redrawEvery)+1 {
		s.samples, s.times = s.samples[1:], s.times[1:]
	}
}

// text is the status line: as much as fits, the most important first.
func (s *status) text(now time.Time, width int) string {
	long := strings.Join(s.fields(now, true), "  ")
	if len(long) <= width {
		return long
	}
	text := ""
	for _, field := range s.fields(now, false) {
		if text != "" {
			field = " " + field
		}
		if len(text)+len(field) > width {
			break
		}
		text += field
	}
	return text
}

// fields are the parts of the status line.
func (s *status) fields(now time.Time, long bool) []string {
	stats := s.samples[len(s.samples)-1]
	fields := []string{s.state(stats, now)}
	if stats.State == resock.StateOpen {
		fields = append(fields, s.rates(stats, now, long)...)
	}
	if stats.State == resock.StateOpen && stats.RoundTrip > 0 {
		name := ""
		if long {
			name = "round trip "
		}
		fields = append(fields, name+brief(stats.RoundTrip).String())
	}
	if stats.Downtime > 0 {
		fields = append(fields, "down "+clock(stats.Downtime))
	}
	return fields
}

// state tells the state and, while waiting, the countdown.
func (s *status) state(stats resock.Stats, now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := stats.State.String()
	switch {
	case stats.State == resock.StateOpen:
		return fmt.Sprintf("%s #%d", text, stats.Session)
	case stats.State == resock.StateWaiting:
		text = fmt.Sprintf("%s, next in %.1fs", text, max(0, s.next.Sub(now)).Seconds())
	}
	if s.attempt > 0 {
		text += fmt.Sprintf(", attempt %d", s.attempt+1)
	}
	if stats.Session > 0 {
		text += fmt.Sprintf(", #%d lost", stats.Session)
	}
	return text
}

// rates tells what came and went in the last second.
func (s *status) rates(stats resock.Stats, now time.Time, long bool) []string {
	first, over := s.samples[0], now.Sub(s.times[0]).Seconds()
	rate := func(now, before uint64) string {
		if over == 0 {
			return "0"
		}
		return short(float64(now-before) / over)
	}
	in := "in " + rate(stats.MessagesIn, first.MessagesIn) + "/s"
	out := "out " + rate(stats.MessagesOut, first.MessagesOut) + "/s"
	if long {
		in += " " + rate(stats.BytesIn, first.BytesIn) + "B/s"
		out += " " + rate(stats.BytesOut, first.BytesOut) + "B/s"
	}
	return []string{in, out}
}

// short writes a number in four characters at most, if it can.
func short(n float64) string {
	for _, unit := range []string{"", "k", "M"} {
		if n < 999.5 {
			if unit != "" && n < 9.95 {
				return fmt.Sprintf("%.1f%s", n, unit)
			}
			return fmt.Sprintf("%.0f%s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.1fG", n)
}

// clock writes a duration to the second, or to the hour if it is long.
func clock(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}
