package wire

import "unicode/utf8"

// utf8Checker validates text that arrives in pieces. It fails at the first byte that
// cannot be part of valid UTF-8, whatever follows.
type utf8Checker struct {
	tail [utf8.UTFMax]byte // tail[:n] is an incomplete sequence at the end of the text
	n    int
}

// write reports whether the text can still be valid, up to the end of p.
func (u *utf8Checker) write(p []byte) bool {
	for u.n > 0 && len(p) > 0 {
		u.tail[u.n] = p[0]
		u.n++
		p = p[1:]
		if sequence := u.tail[:u.n]; utf8.FullRune(sequence) {
			if !utf8.Valid(sequence) {
				return false
			}
			u.n = 0
		}
	}
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		rest := p[len(p)-i:]
		if !utf8.RuneStart(rest[0]) {
			continue
		}
		if !utf8.FullRune(rest) {
			u.n = copy(u.tail[:], rest)
			p = p[:len(p)-i]
		}
		break
	}
	return utf8.Valid(p)
}

// complete reports whether the text may end here.
func (u *utf8Checker) complete() bool { return u.n == 0 }
