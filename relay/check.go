package relay

import (
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/resock/resock"
)

// stage is where a replica is on its way.
type stage int

const (
	idle       stage = iota // Run was not called
	preparing               // the stream and the bucket are not there yet
	standingBy              // it waits for the lease
	changing                // it holds the lease, and does not lead yet or any more
	leading
	ended // Run has returned
)

// part is what a replica does at present.
type part struct {
	stage  stage
	client *resock.Client // while leading, once there is one
	err    error          // what Run returned
}

// Check returns nil while the replica does its part: NATS is connected, and the replica
// stands by, or it leads and its client has an open session. Otherwise the error says what
// is missing. Before Run and after its end it is an error, which wraps what Run returned.
//
// A leader fails the check while it takes over, and from the loss of a session until the
// next one opens, if only for some milliseconds. To bear a short loss, or to ask for recent
// messages, too, add the clients of Config.Client to a [health.Readiness], and ask that
// instead while Stats.Leading is true, as the example does. It cannot replace Check, since
// it reports not ready while a replica stands by and has no client.
//
// Check waits for nothing and asks nobody, and costs nothing while it is not called. It
// may be called at any time and concurrently. Never use it for liveness: a restart mends
// neither NATS nor the server of the feed.
//
// [health.Readiness]: https://pkg.go.dev/github.com/resock/resock/health#Readiness
func (r *Relay) Check() error {
	p, term := r.present()
	switch p.stage {
	case idle:
		return errors.New("relay: not running: Run was not called")
	case ended:
		return fmt.Errorf("relay: not running: Run has returned: %w", p.err)
	}
	if err := checkConn(r.config.Conn); err != nil {
		return err
	}
	switch p.stage {
	case preparing:
		return errors.New("relay: JetStream has not made the stream and the bucket yet")
	case changing:
		return errors.New("relay: neither leads nor stands by: a term begins, or has just ended")
	case leading:
		return checkClient(term, p.client)
	}
	return nil
}

func checkConn(conn *nats.Conn) error {
	status := conn.Status()
	if status == nats.CONNECTED {
		return nil
	}
	err := fmt.Errorf("relay: NATS is %v, want %v", status, nats.CONNECTED)
	last := conn.LastError()
	if status == nats.CLOSED {
		last = nats.ErrConnectionClosed
	}
	if last != nil {
		err = fmt.Errorf("%w: %w", err, last)
	}
	return err
}

func checkClient(term uint64, client *resock.Client) error {
	if client == nil {
		return fmt.Errorf("relay: leads (term %d), and does not read the feed yet", term)
	}
	if state := client.Stats().State; state != resock.StateOpen {
		return fmt.Errorf("relay: leads (term %d), and its client is %v, want %v", term, state, resock.StateOpen)
	}
	return nil
}

// present returns what the replica does, and the last term.
func (r *Relay) present() (part, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.part, r.stats.Term
}

// enter notes that a stage begins.
func (r *Relay) enter(p part) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.part = p
}
