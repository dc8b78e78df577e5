package main

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// pushes are the messages that the server sends by itself.
type pushes struct {
	every  time.Duration // 0 is none
	text   string        // with {n} and {time}
	size   int64         // if it is not -1
	binary bool
	most   int64 // so many, or 0
}

// parsePace reads an interval, such as 500ms, or a rate, such as 100/s.
func parsePace(text string) (time.Duration, error) {
	rate, ok := strings.CutSuffix(text, "/s")
	if !ok {
		d, err := parseDuration(text)
		if err == nil && d < 0 {
			err = errors.New("must not be negative")
		}
		return d, err
	}
	n, err := strconv.ParseFloat(rate, 64)
	if err != nil || !(n > 0) || n > 1e9 {
		return 0, errors.New("a rate is wanted, such as 100/s")
	}
	return max(1, time.Duration(float64(time.Second)/n)), nil
}

// append appends the nth message.
func (c *pushes) append(b []byte, n int64, now time.Time) []byte {
	start := len(b)
	for rest := c.text; rest != ""; {
		before, after, _ := strings.Cut(rest, "{")
		b = append(b, before...)
		if len(before) == len(rest) {
			break
		}
		switch {
		case strings.HasPrefix(after, "n}"):
			b, rest = strconv.AppendInt(b, n, 10), after[len("n}"):]
		case strings.HasPrefix(after, "time}"):
			b, rest = now.AppendFormat(b, timeLayout), after[len("time}"):]
		default:
			b, rest = append(b, '{'), after
		}
	}
	if c.size >= 0 {
		return append(b[:start], padded(b[start:], c.size)...)
	}
	return b
}

// run pushes messages to p until the connection ends. What a slow client missed by more
// than a second is left out; the numbers have no gap.
func (c *pushes) run(p *peer) {
	var buffer []byte
	began, n := time.Now(), int64(0) // n messages were due, or left out
	for number := int64(0); c.most == 0 || number < c.most; {
		due := int64(time.Since(began) / c.every)
		if due == n {
			if !p.gate.sleep(time.Until(began.Add(time.Duration(n+1)*c.every)), nil) {
				return
			}
			continue
		}
		if most := max(1, int64(time.Second/c.every)); due-n > most {
			n = due - most
		}
		if !p.audible() {
			return
		}
		count := min(due-n, 1000)
		if c.most > 0 {
			count = min(count, c.most-number)
		}
		if buffer = c.send(p, buffer[:0], number, count); buffer == nil {
			return
		}
		n, number = n+count, number+count
	}
}

// send sends count messages after the number-th, in one write if they are not compressed.
// It returns the buffer, or nil when the connection ended.
func (c *pushes) send(p *peer, buffer []byte, number, count int64) []byte {
	now, opcode, typ := time.Now(), byte(opText), websocket.MessageText
	if c.binary {
		opcode, typ = opBinary, websocket.MessageBinary
	}
	var message []byte
	for i := range count {
		message = c.append(message[:0], number+i+1, now)
		if p.server.mode != websocket.CompressionDisabled {
			if p.send(typ, message) != nil {
				return nil
			}
			continue
		}
		buffer = appendFrame(buffer, opcode, message)
		if len(buffer) >= 64<<10 || i == count-1 {
			if p.sendMessages(buffer) != nil {
				return nil
			}
			buffer = buffer[:0]
		}
	}
	if p.server.mode == websocket.CompressionDisabled {
		p.counted(count)
	}
	return append(buffer, 0)[:0]
}
