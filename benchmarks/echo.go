package main

import (
	"slices"
	"time"
)

// echo measures the time from sending a message to receiving the server's answer.
func echo(s spec, p peer) (sample, error) {
	trips := &roundTrips{meter: newMeter(s.Length, 10)}
	if err := p.exchange(s.target("/echo"), payloadOf(s.Size), trips); err != nil {
		return nil, err
	}
	took := trips.took[trips.meter.warm:]
	slices.Sort(took)
	result := trips.meter.sample()
	result[metricP50] = float64(took[len(took)/2])
	result[metricP99] = float64(took[len(took)*99/100])
	return result, nil
}

// roundTrips measures the round trips of a peer.
type roundTrips struct {
	meter *meter
	began time.Time
	took  []time.Duration
}

// begin must be called before sending.
func (r *roundTrips) begin() { r.began = time.Now() }

// end must be called after receiving. It reports whether to make another round trip.
func (r *roundTrips) end() bool {
	r.took = append(r.took, time.Since(r.began))
	return r.meter.event()
}
