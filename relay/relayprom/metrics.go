package relayprom

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/resock/resock/relay"
)

// metrics are the descriptions of all metrics.
type metrics struct {
	all []*prometheus.Desc

	leading, term, terms           *prometheus.Desc
	written, requests              *prometheus.Desc
	repeated, resent               *prometheus.Desc
	gaps, dropped, refused         *prometheus.Desc
	unacknowledged, bytes, blocked *prometheus.Desc
	outgoing                       *prometheus.Desc
}

func newMetrics(opts Options) *metrics {
	m := new(metrics)
	desc := func(name, help string) *prometheus.Desc {
		d := prometheus.NewDesc(prometheus.BuildFQName(opts.Namespace, "resock_relay", name), help,
			[]string{"relay"}, opts.ConstLabels)
		m.all = append(m.all, d)
		return d
	}
	m.leading = desc("leading", "1 while this replica leads, else 0.")
	m.term = desc("term", "The last term in which this replica led, or 0.")
	m.terms = desc("terms_total", "Terms in which this replica led.")
	m.written = desc("written_messages_total", "Messages and records that JetStream acknowledged.")
	m.requests = desc("requests_total", "Requests that wrote them: a message each, or a batch.")
	m.repeated = desc("repeated_messages_total", "Messages that the log had already.")
	m.resent = desc("resent_messages_total", "Messages sent to JetStream again.")
	m.gaps = desc("gaps_total", "Records of messages that are missing.")
	m.dropped = desc("dropped_messages_total", "Messages that were not written, since JetStream was too slow.")
	m.refused = desc("refused_messages_total", "Messages that JetStream does not take.")
	m.unacknowledged = desc("unacknowledged_messages", "Messages that wait for JetStream.")
	m.bytes = desc("unacknowledged_bytes", "Memory that those need, about.")
	m.blocked = desc("blocked_seconds_total", "Time that JetStream kept the feed waiting.")
	m.outgoing = desc("outgoing_messages_total", "Messages of other processes that the server of the feed acknowledged.")
	return m
}

// send sends the metrics of one relay.
func (m *metrics) send(s sender, stats relay.Stats) {
	s.gauge(m.leading, number(stats.Leading))
	s.gauge(m.term, float64(stats.Term))
	s.counter(m.terms, float64(stats.Terms))
	s.counter(m.written, float64(stats.Written))
	s.counter(m.requests, float64(stats.Requests))
	s.counter(m.repeated, float64(stats.Repeated))
	s.counter(m.resent, float64(stats.Resent))
	s.counter(m.gaps, float64(stats.Gaps))
	s.counter(m.dropped, float64(stats.Dropped))
	s.counter(m.refused, float64(stats.Refused))
	s.gauge(m.unacknowledged, float64(stats.Unacknowledged))
	s.gauge(m.bytes, float64(stats.Bytes))
	s.counter(m.blocked, stats.Blocked.Seconds())
	s.counter(m.outgoing, float64(stats.Outgoing))
}

// sender sends the metrics of the relay with that name.
type sender struct {
	out  chan<- prometheus.Metric
	name string
}

func (s sender) gauge(desc *prometheus.Desc, value float64) {
	s.out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, s.name)
}

func (s sender) counter(desc *prometheus.Desc, value float64) {
	s.out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, s.name)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
