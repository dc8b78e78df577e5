package resockotel

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/resock/resock"
)

const (
	stateKey     = attribute.Key("resock.state")
	phaseKey     = attribute.Key("resock.phase")
	closeClass   = attribute.Key("resock.close.class")
	unitSeconds  = "s"
	unitBytes    = "By"
	unitMessages = "{message}"
)

// instruments are the metrics of all clients. They hold no values: those are looked up
// whenever the metrics are collected.
type instruments struct {
	state          metric.Int64ObservableUpDownCounter
	stateChanged   metric.Float64ObservableGauge
	attempts       metric.Int64ObservableCounter
	attemptsFailed metric.Int64ObservableCounter
	opens          metric.Int64ObservableCounter
	sessionsFailed metric.Int64ObservableCounter
	closes         metric.Int64ObservableCounter
	downtime       metric.Float64ObservableCounter
	messages       metric.Int64ObservableCounter
	bytes          metric.Int64ObservableCounter
	lastMessage    metric.Float64ObservableGauge
	dropped        metric.Int64ObservableCounter
	queued         metric.Int64ObservableUpDownCounter
	queuedBytes    metric.Int64ObservableUpDownCounter
	blocked        metric.Float64ObservableCounter
	blockedNow     metric.Int64ObservableUpDownCounter
	roundTrip      metric.Float64ObservableGauge

	all []metric.Observable
}

func newInstruments(meter metric.Meter) (instruments, error) {
	m := maker{meter: meter}
	i := instruments{
		state:          m.level("resock.state", "{client}", "1 for the state that the client is in, 0 for the others."),
		stateChanged:   m.gauge("resock.state_change.timestamp", "When the client entered its state, in Unix time."),
		attempts:       m.counter("resock.attempts", "{attempt}", "Attempts to connect that have begun."),
		attemptsFailed: m.counter("resock.attempt.failures", "{attempt}", "Attempts to connect that failed."),
		opens:          m.counter("resock.sessions.opened", "{session}", "Sessions that were opened."),
		sessionsFailed: m.counter("resock.session.failures", "{session}", "Sessions that were lost, or in which the server broke the protocol."),
		closes:         m.counter("resock.session.closes", "{session}", "Sessions that either side closed."),
		downtime:       m.seconds("resock.downtime", "Time without a session, after the first one."),
		messages:       m.counter("resock.messages", unitMessages, "Messages received and sent."),
		bytes:          m.counter("resock.traffic", unitBytes, "Bytes received and sent in frames, without the handshake and TLS."),
		lastMessage:    m.gauge("resock.last_message.timestamp", "When the last message was received, in Unix time."),
		dropped:        m.counter("resock.dropped_messages", unitMessages, "Messages that slow subscribers were not given."),
		queued:         m.level("resock.queue.messages", unitMessages, "Messages that wait to be sent."),
		queuedBytes:    m.level("resock.queue.size", unitBytes, "Bytes of the messages that wait to be sent."),
		blocked:        m.seconds("resock.blocked_time", "Time for which delivery waited for subscribers and handlers."),
		blockedNow:     m.level("resock.blocked", "{client}", "1 while delivery waits for a subscriber or handler, else 0."),
		roundTrip:      m.gauge("resock.round_trip", "Round trip of the last ping that was answered."),
	}
	i.all = m.all
	return i, errors.Join(m.errs...)
}

// maker makes instruments, and remembers them and what went wrong.
type maker struct {
	meter metric.Meter
	all   []metric.Observable
	errs  []error
}

func made[T metric.Observable](m *maker, instrument T, err error) T {
	if err != nil {
		m.errs = append(m.errs, err)
	}
	m.all = append(m.all, instrument)
	return instrument
}

func (m *maker) counter(name, unit, description string) metric.Int64ObservableCounter {
	c, err := m.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
	return made(m, c, err)
}

func (m *maker) level(name, unit, description string) metric.Int64ObservableUpDownCounter {
	c, err := m.meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
	return made(m, c, err)
}

func (m *maker) seconds(name, description string) metric.Float64ObservableCounter {
	c, err := m.meter.Float64ObservableCounter(name, metric.WithUnit(unitSeconds), metric.WithDescription(description))
	return made(m, c, err)
}

func (m *maker) gauge(name, description string) metric.Float64ObservableGauge {
	g, err := m.meter.Float64ObservableGauge(name, metric.WithUnit(unitSeconds), metric.WithDescription(description))
	return made(m, g, err)
}

// observe arranges for the metrics of a client to be reported.
func (i *instruments) observe(meter metric.Meter, e *entry) (metric.Registration, error) {
	name := metric.WithAttributeSet(attribute.NewSet(e.name))
	return meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		stats, ends := e.look()
		i.observeState(o, e, stats)
		i.observeEnds(o, e, ends)
		i.observeTraffic(o, e, stats)
		i.observeTimes(o, name, stats)
		o.ObserveInt64(i.attempts, int64(stats.Attempts), name)
		o.ObserveInt64(i.opens, int64(stats.Opens), name)
		o.ObserveInt64(i.dropped, int64(stats.Dropped), name)
		o.ObserveInt64(i.queued, int64(stats.Queued), name)
		o.ObserveInt64(i.queuedBytes, int64(stats.QueuedBytes), name)
		o.ObserveInt64(i.blockedNow, oneIf(stats.BlockedBy != ""), name)
		return nil
	}, i.all...)
}

func (i *instruments) observeState(o metric.Observer, e *entry, stats resock.Stats) {
	for s := resock.StateIdle; s <= resock.StateClosed; s++ {
		o.ObserveInt64(i.state, oneIf(s == stats.State), metric.WithAttributes(e.name, stateKey.String(s.String())))
	}
}

func (i *instruments) observeEnds(o metric.Observer, e *entry, ends tally) {
	for phase, n := range ends.attempts {
		o.ObserveInt64(i.attemptsFailed, n, metric.WithAttributes(e.name, phaseKey.String(phaseName(phase))))
	}
	for phase, n := range ends.sessions {
		o.ObserveInt64(i.sessionsFailed, n, metric.WithAttributes(e.name, phaseKey.String(phaseName(phase))))
	}
	for class, n := range ends.closes {
		o.ObserveInt64(i.closes, n, metric.WithAttributes(e.name, closeClass.String(class)))
	}
}

func (i *instruments) observeTraffic(o metric.Observer, e *entry, stats resock.Stats) {
	in := metric.WithAttributes(e.name, semconv.NetworkIODirectionReceive)
	out := metric.WithAttributes(e.name, semconv.NetworkIODirectionTransmit)
	o.ObserveInt64(i.messages, int64(stats.MessagesIn), in)
	o.ObserveInt64(i.messages, int64(stats.MessagesOut), out)
	o.ObserveInt64(i.bytes, int64(stats.BytesIn), in)
	o.ObserveInt64(i.bytes, int64(stats.BytesOut), out)
}

// observeTimes leaves out what has not happened yet.
func (i *instruments) observeTimes(o metric.Observer, name metric.ObserveOption, stats resock.Stats) {
	o.ObserveFloat64(i.stateChanged, unixSeconds(stats.Since), name)
	o.ObserveFloat64(i.downtime, stats.Downtime.Seconds(), name)
	o.ObserveFloat64(i.blocked, stats.Blocked.Seconds(), name)
	if !stats.LastMessage.IsZero() {
		o.ObserveFloat64(i.lastMessage, unixSeconds(stats.LastMessage), name)
	}
	if stats.RoundTrip > 0 {
		o.ObserveFloat64(i.roundTrip, stats.RoundTrip.Seconds(), name)
	}
}

func oneIf(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixNano()) / float64(time.Second) }
