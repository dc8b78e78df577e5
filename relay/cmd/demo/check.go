//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock/relay"
	"github.com/resock/resock/relay/internal/feed"
)

// checker reads the stream from its start, and notes what does not hold.
type checker struct {
	resume bool // each number must be there; else a record must tell of those that are not

	numbers []uint64 // as they stand in the stream
	highest uint64
	term    uint64  // of the last record that has one
	begins  []begin // of the terms
	gaps    int     // records at NAME.gap
	told    int     // of those, since the last number
	holes   int     // between numbers
	missing uint64  // numbers in holes
	faults  faults
}

// begin is the record that begins a term.
type begin struct {
	at   time.Time
	term uint64
}

// number notes a number of the feed.
func (c *checker) number(n uint64) {
	last := c.highest
	switch {
	case n <= last:
		c.faults.add("%d stands after %d", n, last)
	case n == last+1:
	case c.resume:
		c.faults.add("%s missing", span(last+1, n-1))
	case len(c.numbers) > 0: // what came before the first session is no hole
		c.holes++
		c.missing += n - last - 1
		if c.told == 0 {
			c.faults.add("%s missing, and no record says so", span(last+1, n-1))
		}
	}
	c.told = 0
	c.highest = max(last, n)
	c.numbers = append(c.numbers, n)
}

func span(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("%d is", from)
	}
	return fmt.Sprintf("%d to %d are", from, to)
}

// gap notes a record at NAME.gap.
func (c *checker) gap(data []byte) {
	c.gaps++
	c.told++
	var g relay.Gap
	if err := json.Unmarshal(data, &g); err != nil {
		c.faults.add("a record of a gap is %q: %v", data, err)
	}
	if c.resume {
		c.faults.add("a gap after %d: %s", c.highest, data)
	}
}

// of notes the term of a record.
func (c *checker) of(term uint64) {
	if term < c.term {
		c.faults.add("a record of term %d after one of term %d, behind %d", term, c.term, c.highest)
	}
	c.term = max(c.term, term)
}

// take notes a message of the stream.
func (c *checker) take(m jetstream.Msg, at time.Time) error {
	switch m.Subject() {
	case "demo.gap":
		c.gap(m.Data())
		return nil
	case "demo.term":
		return c.checkpoint(m.Data(), at)
	}
	term, err := strconv.ParseUint(m.Headers().Get(relay.HeaderTerm), 10, 64)
	if err != nil {
		return fmt.Errorf("a message has no term: %w", err)
	}
	var tick feed.Message
	if err := json.Unmarshal(m.Data(), &tick); err != nil {
		return fmt.Errorf("a message is %q: %w", m.Data(), err)
	}
	c.of(term)
	c.number(tick.Seq)
	return nil
}

// checkpoint notes a record at NAME.term.
func (c *checker) checkpoint(data []byte, at time.Time) error {
	var record struct {
		Term  uint64 `json:"term"`
		Began bool   `json:"began"`
	}
	if err := json.Unmarshal(data, &record); err != nil {
		return fmt.Errorf("a record of a term is %q: %w", data, err)
	}
	c.of(record.Term)
	if record.Began {
		c.begins = append(c.begins, begin{at, record.Term})
	}
	return nil
}

// read shows the whole stream to the checker.
func (c *checker) read(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := connect(url)
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	stream, err := js.Stream(ctx, "demo")
	if err != nil {
		return err
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return err
	}
	return c.consume(ctx, consumer, stream.CachedInfo().State.LastSeq)
}

// consume takes messages up to a sequence.
func (c *checker) consume(ctx context.Context, consumer jetstream.Consumer, last uint64) error {
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read the stream: %w", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if err := c.take(m, meta.Timestamp); err != nil {
			return fmt.Errorf("at %d of the stream: %w", meta.Sequence.Stream, err)
		}
		if meta.Sequence.Stream >= last {
			return nil
		}
	}
}

// faults is what does not hold.
type faults struct {
	first []string // a few
	count int
}

func (f *faults) add(format string, args ...any) {
	if f.count++; f.count <= 5 {
		f.first = append(f.first, fmt.Sprintf(format, args...))
	}
}

// err returns all as an error, or nil if there is none.
func (f *faults) err() error {
	if f.count == 0 {
		return nil
	}
	text := strings.Join(f.first, "; ")
	if more := f.count - len(f.first); more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return fmt.Errorf("%s", text)
}
