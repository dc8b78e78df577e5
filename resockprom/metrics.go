package resockprom

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/resock/resock"
)

// states are all values of the label state.
var states = [...]resock.State{
	resock.StateIdle, resock.StateConnecting, resock.StateOpen, resock.StateWaiting,
	resock.StateOffline, resock.StateSuspended, resock.StateClosed,
}

// phaseNames are the values of the label phase, as phases has them.
var phaseNames = func() (names [len(phases)]string) {
	for i, phase := range phases {
		names[i] = strings.ToLower(phase.String())
	}
	return names
}()

// metrics are the descriptions of all metrics.
type metrics struct {
	all []*prometheus.Desc

	state, stateChange                             *prometheus.Desc
	attempts, failedAttempts                       *prometheus.Desc
	opened, failedSessions, closedSessions         *prometheus.Desc
	downtime                                       *prometheus.Desc
	received, receivedBytes, sent, sentBytes       *prometheus.Desc
	queue, queueBytes, dropped                     *prometheus.Desc
	blocked, blockedTime, roundTrip, lastMessageAt *prometheus.Desc
}

func newMetrics(opts Options) *metrics {
	m := new(metrics)
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		d := prometheus.NewDesc(prometheus.BuildFQName(opts.Namespace, "resock", name), help,
			append([]string{"client"}, labels...), opts.ConstLabels)
		m.all = append(m.all, d)
		return d
	}
	m.state = desc("state", "1 for the state of the client, 0 for all others.", "state")
	m.stateChange = desc("state_change_timestamp_seconds", "When the state began, in Unix time.")
	m.attempts = desc("attempts_total", "Attempts to connect that began.")
	m.failedAttempts = desc("attempt_failures_total", "Attempts to connect that failed, by the phase that failed.", "phase")
	m.opened = desc("sessions_opened_total", "Sessions opened, which is the number of the last one.")
	m.failedSessions = desc("session_failures_total", "Sessions that were lost, or ended by a violation of the protocol, by the phase that failed.", "phase")
	m.closedSessions = desc("session_closes_total", "Sessions that ended by a closing handshake that either side began, by close code.", "code")
	m.downtime = desc("downtime_seconds_total", "Time without a session, after the first one.")
	m.received = desc("received_messages_total", "Messages received.")
	m.receivedBytes = desc("received_bytes_total", "Bytes received in frames, without the handshake and TLS.")
	m.sent = desc("sent_messages_total", "Messages sent.")
	m.sentBytes = desc("sent_bytes_total", "Bytes sent in frames, without the handshake and TLS.")
	m.queue = desc("queue_messages", "Messages of Enqueue that wait to be sent.")
	m.queueBytes = desc("queue_bytes", "Bytes of the messages of Enqueue that wait to be sent.")
	m.dropped = desc("dropped_messages_total", "Messages that slow subscribers were not given.")
	m.blocked = desc("blocked", "1 while delivery waits for a subscriber or handler, else 0.")
	m.blockedTime = desc("blocked_seconds_total", "Time that delivery waited for subscribers and handlers.")
	m.roundTrip = desc("round_trip_seconds", "Round trip of the last ping that was answered. There is none before that.")
	m.lastMessageAt = desc("last_message_timestamp_seconds", "When the last message was received, in Unix time. There is none before that.")
	return m
}

// send sends the metrics of one client.
func (m *metrics) send(out chan<- prometheus.Metric, e *entry) {
	s := sender{out, e.name}
	stats := e.client.Stats()
	for _, state := range states {
		s.gauge(m.state, number(stats.State == state), state.String())
	}
	s.gauge(m.stateChange, unix(stats.Since))
	m.sendAttempts(s, e, stats)
	m.sendTraffic(s, stats)
	s.gauge(m.blocked, number(!stats.BlockedSince.IsZero()))
	s.counter(m.blockedTime, stats.Blocked.Seconds())
	if stats.RoundTrip > 0 {
		s.gauge(m.roundTrip, stats.RoundTrip.Seconds())
	}
	if !stats.LastMessage.IsZero() {
		s.gauge(m.lastMessageAt, unix(stats.LastMessage))
	}
}

func (m *metrics) sendAttempts(s sender, e *entry, stats resock.Stats) {
	s.counter(m.attempts, float64(stats.Attempts))
	s.counter(m.opened, float64(stats.Opens))
	s.counter(m.downtime, stats.Downtime.Seconds())
	s.counters(m.failedAttempts, e.failedAttempts[:], phaseNames[:])
	s.counters(m.failedSessions, e.failedSessions[:], phaseNames[:])
	s.counters(m.closedSessions, e.closedSessions[:], codes[:])
}

func (m *metrics) sendTraffic(s sender, stats resock.Stats) {
	s.counter(m.received, float64(stats.MessagesIn))
	s.counter(m.receivedBytes, float64(stats.BytesIn))
	s.counter(m.sent, float64(stats.MessagesOut))
	s.counter(m.sentBytes, float64(stats.BytesOut))
	s.gauge(m.queue, float64(stats.Queued))
	s.gauge(m.queueBytes, float64(stats.QueuedBytes))
	s.counter(m.dropped, float64(stats.Dropped))
}

// sender sends the metrics of the client with that name.
type sender struct {
	out  chan<- prometheus.Metric
	name string
}

func (s sender) send(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels []string) {
	s.out <- prometheus.MustNewConstMetric(desc, kind, value, append([]string{s.name}, labels...)...)
}

func (s sender) gauge(desc *prometheus.Desc, value float64, labels ...string) {
	s.send(desc, prometheus.GaugeValue, value, labels)
}

func (s sender) counter(desc *prometheus.Desc, value float64, labels ...string) {
	s.send(desc, prometheus.CounterValue, value, labels)
}

// counters sends one counter for each value of a label.
func (s sender) counters(desc *prometheus.Desc, values []atomic.Uint64, labels []string) {
	for i := range values {
		s.counter(desc, float64(values[i].Load()), labels[i])
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unix returns t in the resolution of Prometheus, a millisecond.
func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
