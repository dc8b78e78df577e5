package main

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// feed is a sequence of messages that the server sends repeatedly, each time in one
// write.
type feed struct {
	frames []byte
	ends   []int // offsets of the messages' ends in frames
}

// floodChunk is about the number of bytes that the server writes at once.
const floodChunk = 256 << 10

// feedOf returns the feed of a variant.
func feedOf(variant string, size int) feed {
	switch variant {
	case variantTicks:
		return ticksAlone()
	case variantTakeover:
		return ticksTakeover()
	}
	var f feed
	message := encodeMessage(variant, size)
	for len(f.frames) < floodChunk {
		f.add(message)
	}
	return f
}

func (f *feed) add(frames []byte) {
	f.frames = append(f.frames, frames...)
	f.ends = append(f.ends, len(f.frames))
}

// Compressing is slow, so each feed is made only once.
var (
	ticksAlone    = sync.OnceValue(func() feed { return tickFeed(false) })
	ticksTakeover = sync.OnceValue(func() feed { return tickFeed(true) })
)

// tickFeed returns compressed ticks. With takeover they are one stream of a new
// compressor, which refers to nothing before itself, and so may be repeated.
func tickFeed(takeover bool) feed {
	var f feed
	m, d := newMarket(), newDeflater()
	for len(f.frames) < floodChunk {
		if !takeover {
			d.reset()
		}
		f.add(appendFrame(nil, finBit|rsv1Bit|opText, d.message(m.tick())))
	}
	return f
}

// tickSize is the size of every tick, by which inbound checks what it received.
const tickSize = 230

// market makes ticks that vary like real ones, but are the same in each run.
type market struct {
	random *rand.Rand
	cents  []int // the price of each symbol
	n      int   // ticks so far
}

var symbols = []string{"BTC-USD", "ETH-USD", "SOL-USD", "LTC-USD", "BCH-USD", "DOT-USD", "BTC-EUR", "ETH-EUR"}

func newMarket() *market {
	m := &market{random: rand.New(rand.NewPCG(1, 2))}
	for range symbols {
		m.cents = append(m.cents, 2_000_000+m.random.IntN(6_000_000))
	}
	return m
}

func (m *market) tick() []byte {
	m.n++
	i := m.random.IntN(len(symbols))
	m.cents[i] += m.random.IntN(401) - 200
	price := func(offset int) float64 { return float64(m.cents[i]+offset) / 100 }
	amount := func() float64 { return float64(m.random.IntN(100_000)) / 10_000 }
	at := time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC).Add(time.Duration(m.n)*1700*time.Microsecond + time.Duration(m.random.IntN(1_000_000)))
	return fmt.Appendf(nil,
		`{"type":"ticker","exchange":"XRSK","symbol":"%s","bid":%.2f,"bid_size":%.4f,"ask":%.2f,"ask_size":%.4f,"last":%.2f,"last_size":%.4f,"trades":%d,"time":"%s","sequence":%d}`,
		symbols[i], price(-m.random.IntN(150)), amount(), price(m.random.IntN(150)), amount(), price(0), amount(),
		400_000+3*m.n, at.Format("2006-01-02T15:04:05.000000Z"), 4_711_000_000+m.n)
}
