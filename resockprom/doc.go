// Package resockprom exports what the clients of a program do to Prometheus.
//
//	metrics := resockprom.New(resockprom.Options{})
//	prometheus.MustRegister(metrics)
//
//	remove, err := metrics.Add("prices", client) // a name of your own, before Run
//	…
//	http.Handle("/metrics", promhttp.Handler())
//
// The folder of the package has a dashboard for Grafana (dashboard.json) and alerts for
// Prometheus (alerts.yaml), with the names as they are without a namespace.
//
// # Metrics
//
// Each has the label client. Counters begin at [resock.New], those by phase and code at
// [Collector.Add]; values are those of [resock.Stats].
//
//	resock_state{state}                    1 for the state it is in: idle, connecting, open, waiting, offline, suspended, closed
//	resock_state_change_timestamp_seconds  when that state began
//	resock_attempts_total                  attempts begun
//	resock_attempt_failures_total{phase}   attempts that failed
//	resock_sessions_opened_total           sessions opened, also the number of the last one
//	resock_session_failures_total{phase}   sessions lost
//	resock_session_closes_total{code}      sessions closed, by either side
//	resock_downtime_seconds_total          time without a session, after the first one
//	resock_received_messages_total, resock_received_bytes_total
//	resock_sent_messages_total, resock_sent_bytes_total
//	resock_queue_messages, resock_queue_bytes
//	resock_dropped_messages_total          messages that slow subscribers were not given
//	resock_blocked                         1 while delivery is blocked
//	resock_blocked_seconds_total           for how long it was, in all
//	resock_round_trip_seconds              of the last ping that was answered; missing before
//	resock_last_message_timestamp_seconds  when the last message came; missing before
//
// A phase is one of [resock.Phase] in lower case, such as tcp or heartbeat. A code is 1000,
// 1001, 1005, 1008, 1011, 1012, 1013, or 1xxx, 3xxx, 4xxx and other for all else.
//
// # Cardinality
//
// A client has 53 series, whatever it meets: states, phases and codes are fixed lists, all
// of which are exported from the start, so that rate and increase miss no first failure.
// No URL, reason or error is a label. Take names from a list that does not grow, such as
// the feeds in a configuration, not from users or connections.
//
// # Cost
//
// Nothing happens per message. A client has one goroutine, which sleeps between its events;
// of a client that fails so fast that the goroutine falls 128 events behind, it misses some.
// A scrape calls [resock.Client.Stats] once for each client.
package resockprom
