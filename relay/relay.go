package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock"
	"github.com/resock/resock/resume"
)

// Config configures [Run]. Conn, Name and URL are required.
type Config struct {
	// Conn is the connection to NATS. It should reconnect for ever
	// (nats.MaxReconnects(-1)). The relay does not close it.
	Conn *nats.Conn

	// Name is the name of the feed, of letters, digits, - and _. It names the stream, the
	// bucket NAME-lease and the subjects. All replicas have the same.
	Name string

	// URL is the address of the server of the feed, ws or wss.
	URL string

	// Read finds the position of a message, as the Read of [resume.Config] does. Without it
	// messages have none, and each session but the first begins with a gap
	// ([ReasonSession]).
	Read func(m resock.MessageEvent, found *resume.Found)

	// Options returns the options of a new client. Their hooks ask the feed where to go on.
	// Defaults to none.
	Options func(feed *resume.Feed) []resock.Option

	// Topic returns the last part of the subject of a message, NAME.msg.TOPIC: tokens with
	// dots between them, as NATS has it. A topic that cannot stand in a subject, such as
	// one with a space, becomes "_". Topic must not write to m.Data. Calls follow one
	// another, and the feed waits for each. Defaults to "all".
	Topic func(m resume.Message) string

	// TTL is how long the lease of a dead leader lasts. All replicas should have the same:
	// it is set by the one that started last. Defaults to 10 s; at least 500 ms.
	TTL time.Duration

	// Unacknowledged is how many messages may wait until JetStream has acknowledged them.
	// What happens to more, Overflow says. Defaults to 8192.
	Unacknowledged int

	// MaxBytes is how many bytes of memory those may need; what a standby keeps has the same
	// limit, for itself. One message may need more. Defaults to 32 MiB.
	MaxBytes int

	// Overflow says what happens when one of the two is reached. Defaults to [Wait].
	Overflow Overflow

	// Stream configures the stream: retention, replicas, storage. Name, Subjects,
	// AllowDirect and AllowAtomicPublish are set by the relay. All replicas should have the
	// same: each makes the stream, or changes it to what it has here, when it starts.
	// Defaults to files, kept for ever: nothing is removed until the disk is full.
	Stream jetstream.StreamConfig

	// Standby is how many messages a relay that stands by reads and keeps, so that it goes
	// on without a gap. Whenever there are more it forgets the older half. It needs Read and
	// a feed that allows a session for each replica. Defaults to 0: it does not connect.
	Standby int

	// Out sends messages of other processes to the server of the feed. Defaults to none.
	Out *Out

	// Client is told each client before it runs, that of a standby, too: for metrics, health
	// and the page of debug. It returns a function, not nil, which is called when the client
	// has ended. There is one client at a time. Defaults to none.
	Client func(client *resock.Client) (remove func())

	// Log is told when terms begin and end, what the client does while it leads, and what
	// JetStream does not take. Defaults to no log.
	Log *slog.Logger
}

// Overflow says what happens when JetStream is slow or away.
type Overflow int

const (
	// Wait stops reading from the feed, so that its server has to wait. If that closes the
	// session, the next one goes on where the stream ends.
	Wait Overflow = iota

	// Drop drops what comes until half of the limit is free again, counts it, and writes a
	// gap in its place ([ReasonOverflow]).
	Drop
)

// Stats is a snapshot of a relay. Counters begin at [New].
type Stats struct {
	Leading        bool
	Term           uint64        // the last one in which this replica led, or 0
	Terms          uint64        // in which this replica led
	Written        uint64        // messages and records that JetStream acknowledged
	Requests       uint64        // in which they were written
	Repeated       uint64        // messages that the stream had already, and that were not written again
	Resent         uint64        // messages and records that were sent to JetStream again
	Dropped        uint64        // messages for which there was no room; see [Drop]
	Refused        uint64        // messages that JetStream does not take; a gap stands for them
	Gaps           uint64        // records at NAME.gap
	Unacknowledged int           // messages and records that wait for JetStream
	Bytes          int           // of memory that those need, about
	Blocked        time.Duration // for which JetStream kept the feed waiting
	Outgoing       uint64        // messages of the way back that the server of the feed acknowledged
}

// Relay is one replica of a relay. Its methods may be called concurrently; Run once.
type Relay struct {
	config Config
	lease  lease
	log    log
	out    jetstream.Stream // or nil

	mu     sync.Mutex
	stats  Stats
	writer *writer // of the present term, or nil
	part   part
}

var nameRule = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// Run runs a relay until ctx ends, and returns the cause of that. It returns earlier only if
// it cannot go on: by an error of [New], if an option cannot work ([resock.OptionError]), if
// the client gave up ([resock.GiveUpError]), if NATS refuses the stream or the bucket, or if
// Conn is closed.
// Whatever else happens, it tries again. When it returns, nothing of it runs any more.
func Run(ctx context.Context, config Config) error {
	r, err := New(config)
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

// New returns a relay, which does nothing before [Relay.Run]. An error names the field of
// config that cannot work.
func New(config Config) (*Relay, error) {
	switch {
	case config.Conn == nil:
		return nil, errors.New("relay: Config.Conn is nil")
	case !nameRule.MatchString(config.Name):
		return nil, fmt.Errorf("relay: Config.Name is %q, want letters, digits, - and _", config.Name)
	case config.URL == "":
		return nil, errors.New("relay: Config.URL is empty")
	case config.TTL != 0 && config.TTL < 500*time.Millisecond:
		return nil, fmt.Errorf("relay: Config.TTL is %v, want at least 500ms", config.TTL)
	case config.Unacknowledged < 0 || config.MaxBytes < 0 || config.Standby < 0:
		return nil, fmt.Errorf("relay: Config.Unacknowledged, MaxBytes and Standby are %d, %d and %d, want none below 0",
			config.Unacknowledged, config.MaxBytes, config.Standby)
	case config.Overflow != Wait && config.Overflow != Drop:
		return nil, fmt.Errorf("relay: Config.Overflow is %d, want Wait or Drop", config.Overflow)
	case config.Standby > 0 && config.Read == nil:
		return nil, errors.New("relay: Config.Standby needs Config.Read: without positions nobody knows what the log has")
	case config.Out != nil && config.Out.Read == nil:
		return nil, errors.New("relay: Config.Out.Read is nil")
	case config.Out != nil && config.Out.Window < 0:
		return nil, fmt.Errorf("relay: Config.Out.Window is %d, want none below 0", config.Out.Window)
	}
	if _, err := resock.New(config.URL); err != nil {
		return nil, fmt.Errorf("relay: Config.URL: %w", err)
	}
	config.byDefault()
	return &Relay{config: config}, nil
}

func (c *Config) byDefault() {
	if c.TTL == 0 {
		c.TTL = 10 * time.Second
	}
	if c.Unacknowledged == 0 {
		c.Unacknowledged = 8192
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 32 << 20
	}
	if c.Options == nil {
		c.Options = func(*resume.Feed) []resock.Option { return nil }
	}
	if c.Topic == nil {
		c.Topic = func(resume.Message) string { return "all" }
	}
	if c.Client == nil {
		c.Client = func(*resock.Client) func() { return func() {} }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Run runs the relay, as the function [Run] does. Call it once.
func (r *Relay) Run(ctx context.Context) error {
	r.enter(part{stage: preparing})
	err := r.run(ctx)
	r.enter(part{stage: ended, err: err})
	return err
}

func (r *Relay) run(ctx context.Context) error {
	if err := r.prepare(ctx); err != nil {
		return err
	}
	var again backoff // after terms that end at once, such as those of a feed that sends all away
	for {
		standby, err := r.standBy(ctx)
		if err != nil {
			return err
		}
		r.enter(part{stage: standingBy})
		r.config.Log.Info("standing by")
		t, err := r.lease.acquire(ctx)
		if err != nil {
			standby.stop()
			return err
		}
		r.enter(part{stage: changing})
		began := time.Now()
		err = r.lead(ctx, t, standby)
		t.release()
		var gaveUp *resock.GiveUpError
		var wrong *resock.OptionError // of Config.Options
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &gaveUp), errors.As(err, &wrong):
			return err
		}
		r.config.Log.Warn("the term is over", "term", t.epoch, "err", err)
		if time.Since(began) > r.config.TTL {
			again = 0
		}
		_ = again.wait(ctx)
	}
}

// prepare makes the stream and the bucket, as soon as NATS is there.
func (r *Relay) prepare(ctx context.Context) error {
	var again backoff
	told := "" // the last error: one that comes again is not logged again
	for {
		err := r.tryPrepare(ctx)
		var refused *jetstream.APIError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case r.config.Conn.IsClosed():
			return err
		case errors.Is(err, errOldServer), errors.As(err, &refused) && (refused.Code < 500 || refused.ErrorCode == noCluster):
			return fmt.Errorf("relay: make the stream and the bucket: %w", err)
		}
		if err.Error() != told {
			told = err.Error()
			r.config.Log.Warn("the stream and the bucket cannot be made now", "err", err)
		}
		if again.wait(ctx) != nil {
			return context.Cause(ctx)
		}
	}
}

func (r *Relay) tryPrepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c := &r.config
	if err := checkConn(c.Conn); err != nil {
		return err
	}
	js, err := jetstream.New(c.Conn)
	if err != nil {
		return err
	}
	names := subjects{c.Name}
	config := c.Stream
	config.Name, config.Subjects, config.AllowDirect = c.Name, []string{names.message(">"), names.gap(), names.term()}, false
	config.AllowAtomicPublish = true
	stream, err := js.CreateOrUpdateStream(ctx, config)
	if err != nil {
		return err
	}
	if !stream.CachedInfo().Config.AllowAtomicPublish {
		return fmt.Errorf("%w: %s is %s, want 2.12 or later", errOldServer, c.Conn.ConnectedServerName(), c.Conn.ConnectedServerVersion())
	}
	bucket, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: c.Name + "-lease", TTL: c.TTL, Replicas: max(config.Replicas, 1),
	})
	if err != nil {
		return err
	}
	r.lease = lease{bucket: bucket, key: "leader", ttl: c.TTL, told: r.untaken}
	r.log = log{js: js, stream: stream, names: names, limit: limit{c.Unacknowledged, c.MaxBytes}, told: r.tell}
	return r.prepareOut(ctx, js)
}

// noCluster is the refusal of several replicas by a server that is alone.
const noCluster jetstream.ErrorCode = 10074

var errOldServer = errors.New("the server of NATS stores no batches")

// tell logs why the stream cannot be written.
func (r *Relay) tell(err error) { r.config.Log.Warn("the stream cannot be written now", "err", err) }

// untaken logs why the lease cannot be taken, other than that another has it.
func (r *Relay) untaken(err error) { r.config.Log.Warn("the lease cannot be taken now", "err", err) }

// Stats returns a snapshot, at any time.
func (r *Relay) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	if r.writer != nil {
		s.add(r.writer.counted())
	}
	return s
}

func (s *Stats) add(w logStats) {
	s.Written += w.Written
	s.Requests += w.Requests
	s.Repeated += w.Repeated
	s.Resent += w.Resent
	s.Refused += w.Refused
	s.Blocked += w.Blocked
	s.Unacknowledged, s.Bytes = w.unacknowledged, w.bytes
}
