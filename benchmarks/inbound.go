package main

import "fmt"

// inbound measures what receiving a message costs while the server sends faster
// than the client reads.
func inbound(s spec, p peer) (sample, error) {
	r := &reception{meter: newMeter(s.Length, 500)}
	if err := p.receive(s.target("/flood"), r); err != nil {
		return nil, err
	}
	if r.bytes != s.Size*r.meter.seen {
		return nil, fmt.Errorf("%d messages of %d bytes in all, not %d each", r.meter.seen, r.bytes, s.Size)
	}
	return r.meter.sample(), nil
}

// reception is told of every message that a peer receives.
type reception struct {
	meter *meter
	bytes int
}

// message notes a message, and reports whether more are to come.
func (r *reception) message(data []byte) bool {
	r.bytes += len(data)
	return r.meter.event()
}
