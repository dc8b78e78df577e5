package wire

import (
	"fmt"
	"testing"
)

// repeated is a transport on which the server sends the same frames forever.
type repeated struct {
	frames []byte
	at     int
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		k := copy(p[n:], r.frames[r.at:])
		n += k
		if r.at += k; r.at == len(r.frames) {
			r.at = 0
		}
	}
	return n, nil
}

func (*repeated) Write(p []byte) (int, error) { return len(p), nil }
func (*repeated) Close() error                { return nil }

// BenchmarkNext measures receiving from a transport in memory, without the network.
func BenchmarkNext(b *testing.B) {
	for _, borrow := range []bool{true, false} {
		for _, size := range []int{16, 128, 1 << 10} {
			b.Run(fmt.Sprintf("borrow=%v/size=%d", borrow, size), func(b *testing.B) {
				var frames []byte
				for range 100 {
					frames = append(frames, frame(finBit|opBinary, string(make([]byte, size)))...)
				}
				c, _ := start(b, setting{limit: 1 << 20}, &repeated{frames: frames})
				defer c.Release()
				b.ReportAllocs()
				sum := 0
				for n := 0; n < b.N; {
					burst, err := c.Next(borrow)
					if err != nil {
						b.Fatal(err)
					}
					for _, m := range burst {
						sum += len(m.Data) + int(m.Type)
					}
					n += len(burst)
				}
			})
		}
	}
}
