package wire

import (
	"compress/flate"
	"sync"
)

// compressor compresses one message at a time, without context takeover: that is always
// the client's choice (RFC 7692, section 7.1.1.2), and it lets all connections share a
// pool of compressors.
type compressor struct {
	flate *flate.Writer
	out   []byte
}

var compressors = sync.Pool{New: func() any {
	z := new(compressor)
	z.flate, _ = flate.NewWriter(z, flate.BestSpeed) // fails only for an unknown level
	return z
}}

// Write implements io.Writer for the flate.Writer.
func (z *compressor) Write(p []byte) (int, error) {
	z.out = append(z.out, p...)
	return len(p), nil
}

// compress returns the payload of a compressed message (RFC 7692, section 7.2.1),
// valid until the next call.
func (z *compressor) compress(data []byte) []byte {
	z.out = z.out[:0]
	z.flate.Reset(z)
	_, _ = z.flate.Write(data) // neither Write nor Flush can fail, since z.Write cannot
	_ = z.flate.Flush()
	return z.out[:len(z.out)-len(tail)]
}

// recycle returns z to the pool, but not an oversized buffer.
func (z *compressor) recycle() {
	if cap(z.out) > maxScratch {
		z.out = nil
	}
	compressors.Put(z)
}

// compressible reports whether a message is large enough to be worth compressing, and
// fits into the sliding window that the server asked for. A longer one could contain
// references beyond that window, since compress/flate always uses 32 KiB.
func (c *Conn) compressible(data []byte) bool {
	return c.deflate.On && len(data) >= int(c.config.CompressFrom) && len(data) <= c.deflate.clientWindow()
}
