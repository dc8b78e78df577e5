package wire

import (
	"compress/flate"
	"sync"
)

// compressor compresses one message at a time. It never refers to a former one,
// which the client may always do without (RFC 7692, section 7.1.1.2), so that many
// connections share it.
type compressor struct {
	flate *flate.Writer
	out   []byte
}

var compressors = sync.Pool{New: func() any {
	z := new(compressor)
	z.flate, _ = flate.NewWriter(z, flate.BestSpeed) // a level that exists
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
	_, _ = z.flate.Write(data) // cannot fail, nor can Flush: z.Write does not
	_ = z.flate.Flush()
	return z.out[:len(z.out)-len(tail)]
}

// recycle gives z back.
func (z *compressor) recycle() {
	if cap(z.out) > maxScratch {
		z.out = nil
	}
	compressors.Put(z)
}

// compressible reports whether a message is worth it, and may be: what is longer
// than the window that the server asked for could refer to what the server has
// forgotten.
func (c *Conn) compressible(data []byte) bool {
	return c.deflate.On && len(data) >= int(c.config.CompressFrom) && len(data) <= c.deflate.clientWindow()
}
