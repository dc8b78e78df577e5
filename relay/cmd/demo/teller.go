//go:build unix

package main

import (
	"fmt"
	"io"
	"time"
)

// teller prints lines with the time.
type teller struct {
	began   time.Time
	all     io.Writer // for what is said
	details io.Writer // for all faults and what they do
	log     io.Writer // for the rest
	brief   bool      // the details are too many for all
}

// newTeller returns a teller that writes to the output, and with all details to a log.
func newTeller(output, log io.Writer, brief bool) *teller {
	t := &teller{began: time.Now(), all: io.MultiWriter(output, log), details: log, log: log, brief: brief}
	if !brief {
		t.details = t.all
	}
	return t
}

func (t *teller) say(format string, args ...any) { t.print(t.all, format, args) }

// detail prints a line of which there may be too many.
func (t *teller) detail(format string, args ...any) { t.print(t.details, format, args) }

// note prints a line that only the log has.
func (t *teller) note(format string, args ...any) { t.print(t.log, format, args) }

func (t *teller) print(to io.Writer, format string, args []any) {
	fmt.Fprintf(to, "%6.2fs  %s\n", time.Since(t.began).Seconds(), fmt.Sprintf(format, args...))
}
