package main

import "fmt"

// inbound measures receiving while the server sends faster than the client reads.
func inbound(s spec, p peer) (sample, error) {
	r := &reception{meter: newMeter(s.Length, 500)}
	if err := p.receive(s.target("/flood"), r); err != nil {
		return nil, err
	}
	if r.bytes != s.Size*r.meter.seen {
		return nil, fmt.Errorf("received %d messages with %d bytes in all, want %d bytes each", r.meter.seen, r.bytes, s.Size)
	}
	return r.meter.sample(), nil
}

// reception counts the messages that a peer receives.
type reception struct {
	meter *meter
	bytes int
}

// message counts a message and reports whether to receive more.
func (r *reception) message(data []byte) bool {
	r.bytes += len(data)
	return r.meter.event()
}
