package main

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/resock/resock"
)

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// lineWriter is a buffer for whole lines, which it writes as whole lines. A plain
// [bufio.Writer] cuts a line in two when it is full, and something else, such as the status
// line, can come in between.
type lineWriter struct{ buffer *bufio.Writer }

func newLineWriter(to io.Writer) lineWriter {
	return lineWriter{bufio.NewWriterSize(to, 64<<10)}
}

// Write implements [io.Writer] for whole lines.
func (w lineWriter) Write(lines []byte) (int, error) {
	if len(lines) > w.buffer.Available() {
		if err := w.buffer.Flush(); err != nil {
			return 0, err
		}
	}
	return w.buffer.Write(lines) // past the buffer if they do not fit in it
}

// Flush writes what waits. Errors are sticky.
func (w lineWriter) Flush() error { return w.buffer.Flush() }

// output is standard output: messages and, in JSON, the other events. Only the loop uses
// it.
type output struct {
	w       lineWriter
	start   time.Time
	json    bool
	hex     bool
	stamped bool   // with the time
	escaped bool   // without control characters, for a terminal
	line    []byte // to be used again
}

const longLine = 1 << 20 // bytes; the memory of a longer line is not kept

func newOutput(s *settings, screen *screen, start time.Time) *output {
	return &output{
		w: newLineWriter(screen.output()), start: start,
		json: s.json, hex: s.hex, stamped: s.timestamps,
		escaped: term.IsTerminal(int(os.Stdout.Fd())),
	}
}

func (o *output) flush() error { return o.w.Flush() }

// message writes a message. It does not allocate, except for a hex dump.
func (o *output) message(at time.Time, m resock.MessageEvent) error {
	b := o.line[:0]
	switch {
	case o.json:
		b = appendMessage(b, o.start, at, o.stamped, m)
	case o.hex:
		b = o.appendStamp(b, at)
		b = fmt.Appendf(b, "%s, %d bytes\n", typeName(m.Type), len(m.Data))
		b = append(b, hex.Dump(m.Data)...)
	default:
		b = o.appendStamp(b, at)
		b = o.appendText(b, m)
		b = append(b, '\n')
	}
	if o.line = b; cap(b) > longLine {
		o.line = nil
	}
	_, err := o.w.Write(b)
	return err
}

// entry writes an event as a JSON object.
func (o *output) entry(at time.Time, e entry) error {
	if o.stamped {
		e.Time = at.Format(timeLayout)
	}
	return writeEntry(o.w, o.start, at, e)
}

func (o *output) appendStamp(b []byte, at time.Time) []byte {
	if !o.stamped {
		return b
	}
	return append(at.AppendFormat(b, timeLayout), ' ')
}

// appendText appends a message as text. A binary one is base64, so that each message is a
// line that other programs can read.
func (o *output) appendText(b []byte, m resock.MessageEvent) []byte {
	switch {
	case m.Type == resock.MessageBinary:
		return base64.StdEncoding.AppendEncode(b, m.Data)
	case o.escaped:
		return appendVisible(b, m.Data)
	}
	return append(b, m.Data...)
}

// appendVisible appends text with its control characters, except for tabs and line
// breaks, spelled out: a server must not control the terminal.
func appendVisible(b, text []byte) []byte {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		text = text[n:]
		switch {
		case r == '\t' || r == '\n':
			b = append(b, byte(r))
		case r < ' ' || r >= 0x7f && r < 0xa0:
			b = fmt.Appendf(b, `\x%02x`, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}

func typeName(typ resock.MessageType) string {
	if typ == resock.MessageBinary {
		return "binary"
	}
	return "text"
}

// writeEntry writes an entry as a line.
func writeEntry(w io.Writer, start, at time.Time, e entry) error {
	e.At = seconds(at.Sub(start))
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(e)
}
