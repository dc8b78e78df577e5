// Package relayprom exports what the relays of a program do to Prometheus.
//
//	metrics := relayprom.New(relayprom.Options{})
//	prometheus.MustRegister(metrics)
//
//	remove, err := metrics.Add("ticks", replica) // of relay.New, before Run
//	…
//	http.Handle("/metrics", promhttp.Handler())
//
// The folder of the package has alerts for Prometheus (alerts.yaml), with the names as they
// are without a namespace. The client of a term is exported by package resockprom; the field
// Client of [relay.Config] tells when there is one, as the example shows.
//
// # Metrics
//
// Each has the label relay. Counters begin at [relay.New]; values are those of
// [relay.Stats].
//
//	resock_relay_leading                    1 while this replica leads, else 0
//	resock_relay_term                       the last term in which this replica led, or 0
//	resock_relay_terms_total                terms in which this replica led
//	resock_relay_written_messages_total     messages and records that JetStream acknowledged
//	resock_relay_requests_total             requests that wrote them: a message each, or a batch
//	resock_relay_repeated_messages_total    messages that the log had already
//	resock_relay_resent_messages_total      messages sent to JetStream again
//	resock_relay_gaps_total                 records of what is missing
//	resock_relay_dropped_messages_total     messages that were not written, since JetStream was too slow
//	resock_relay_refused_messages_total     messages that JetStream does not take
//	resock_relay_unacknowledged_messages    messages that wait for JetStream
//	resock_relay_unacknowledged_bytes       memory that those need, about
//	resock_relay_blocked_seconds_total      for how long JetStream kept the feed waiting, in all
//	resock_relay_outgoing_messages_total    messages of the way back that the server of the feed acknowledged
//
// Give all replicas of a relay the same name: exactly one of them should lead. The labels
// that Prometheus adds (job, instance) tell them apart.
//
// # Cardinality
//
// A relay has 14 series, all of which are exported from the start, so that rate and
// increase miss nothing. No subject, stream or error is a label.
//
// # Cost
//
// Nothing happens per message, and nothing runs between scrapes. A scrape calls
// [relay.Relay.Stats] once for each relay.
package relayprom
