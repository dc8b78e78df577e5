package main

import (
	"encoding/base64"
	"math"
	"strconv"
	"time"

	"github.com/resock/resock"
)

// seconds is a duration as an entry has it, to the microsecond.
func seconds(d time.Duration) float64 {
	return math.Round(d.Seconds()*1e6) / 1e6
}

// appendMessage appends the line of a message as encoding/json would, without allocating.
func appendMessage(b []byte, start, at time.Time, stamped bool, m resock.MessageEvent) []byte {
	b = append(b, `{"at":`...)
	b = strconv.AppendFloat(b, seconds(at.Sub(start)), 'f', -1, 64)
	if stamped {
		b = append(b, `,"time":"`...)
		b = at.AppendFormat(b, timeLayout)
		b = append(b, '"')
	}
	b = append(b, `,"event":"message","session":`...)
	b = strconv.AppendUint(b, m.Session, 10)
	if m.Type == resock.MessageBinary {
		b = append(b, `,"binary":"`...)
		b = base64.StdEncoding.AppendEncode(b, m.Data)
		return append(b, "\"}\n"...)
	}
	b = append(b, `,"text":"`...)
	b = appendEscaped(b, m.Data)
	return append(b, "\"}\n"...)
}

const hexDigits = "0123456789abcdef"

// appendEscaped appends text as it stands in a JSON string (RFC 8259, section 7).
func appendEscaped(b, text []byte) []byte {
	plain := 0 // where what needs no escaping begins
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, text[plain:i]...)
		b = appendEscape(b, c)
		plain = i + 1
	}
	return append(b, text[plain:]...)
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}
