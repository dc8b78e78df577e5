// Package health answers readiness probes: is the connection that this program needs
// there?
//
//	var ready health.Readiness
//
//	remove, err := ready.Add("prices", client, health.WithGrace(30*time.Second))
//	…
//	http.Handle("/readyz", &ready)
//
// A client is ready while its connection is open. [WithGrace] keeps it ready for a while
// after a loss, so that a restart of the server goes unnoticed, and [WithFreshness] asks for
// recent messages, too. Of several clients all must be ready; if one of two is enough, give
// each a Readiness of its own and combine what [Readiness.Check] returns.
//
// # States
//
//	not opened yet    not ready, whatever the grace period
//	open              ready, if it is fresh
//	lost              ready until the grace period is over, if it is fresh
//	offline           as lost: why there is no connection makes no difference
//	suspended         not ready at once, since nobody works on it; ready by WithSuspended
//	closing, closed   never ready: Close or Shutdown was called, even if the state is still open
//	no client         not ready, so that a forgotten Add shows on the first day
//
// A reconnect on purpose ([resock.Client.Reconnect], [resock.WithMaxSessionAge]) is a loss,
// too, mostly of some milliseconds.
//
// # Kubernetes
//
//	readinessProbe:
//	  httpGet:
//	    path: /readyz
//	    port: 8080
//	  periodSeconds: 5
//	  failureThreshold: 2
//
// If all replicas need the same server, all of them become unready when it is down for
// longer than the grace period, and their Service has no endpoints left. That is right if
// they can answer nothing without the connection. If they can, do not probe it: watch it by
// metrics and alerts instead.
//
// # Never for liveness
//
// A liveness probe restarts the program, and a restart does not mend the server. The client
// reconnects by itself, with a delay that spreads the clients of a fleet. A fleet that is
// restarted loses its queues and delays, and dials all at once: that makes the outage worse,
// and each restart backs off (CrashLoopBackOff) until well after the server is back. A
// liveness probe should tell only whether the process answers.
package health
