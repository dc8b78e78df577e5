package wire

import (
	"testing"
	"unicode/utf8"
)

// utf8Texts are texts around every boundary of what UTF-8 allows.
var utf8Texts = []string{
	"", "a", "Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "日本語", "🙂🙃",
	"\x00\x7f", "\u0080\u07ff", "\u0800\ud7ff\ue000\ufffd\uffff", "\U00010000\U0010ffff",
	"\x80", "\xbf", "\xc0", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2a", "\xdf\xbf\x80",
	"\xe0\x80\x80", "\xe0\x9f\xbf", "\xe0\xa0", "\xed\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
	"\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf0\x90\x80", "\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80",
	"\xf5", "\xf8\x88\x80\x80\x80", "\xfe", "\xff", "a\xe1\x80b", "\xf1\x80\x80b", "é\xc3",
	"κόσμε\xed\xa0\x80edited", "κόσμε\xf4\x90\x80\x80",
}

// impossibleFrom returns the length of the shortest prefix of text that cannot be
// continued to valid UTF-8, or len(text)+1 if there is none.
func impossibleFrom(text string) int {
	for n := range len(text) + 1 {
		if !completable(text[:n]) {
			return n
		}
	}
	return len(text) + 1
}

func TestUTF8Checker(t *testing.T) {
	for _, text := range utf8Texts {
		impossible := impossibleFrom(text)
		for cut := range len(text) + 1 {
			var u utf8Checker
			first := u.write([]byte(text[:cut]))
			if want := cut < impossible; first != want {
				t.Errorf("%q: the first %d bytes: got %v", text, cut, first)
			}
			if !first {
				continue
			}
			if u.complete() != utf8.ValidString(text[:cut]) {
				t.Errorf("%q: complete after %d bytes: %v", text, cut, u.complete())
			}
			valid := u.write([]byte(text[cut:])) && u.complete()
			if valid != utf8.ValidString(text) {
				t.Errorf("%q cut at %d: got %v", text, cut, valid)
			}
		}
	}
}

func TestUTF8CheckerByBytes(t *testing.T) {
	for _, text := range utf8Texts {
		impossible := impossibleFrom(text)
		var u utf8Checker
		for i := range len(text) {
			if ok, want := u.write([]byte(text[i:i+1])), i+1 < impossible; ok != want {
				t.Errorf("%q: byte %d: got %v", text, i, ok)
			} else if !ok {
				break
			}
			if !u.write(nil) {
				t.Errorf("%q: an empty write after byte %d fails", text, i)
			}
		}
	}
}

// TestUTF8CheckerInThree writes three pieces: the one in the middle may contain neither
// the first nor the last byte of a sequence.
func TestUTF8CheckerInThree(t *testing.T) {
	for _, text := range utf8Texts {
		for i := range len(text) + 1 {
			for j := i; j <= len(text); j++ {
				var u utf8Checker
				valid := u.write([]byte(text[:i])) && u.write([]byte(text[i:j])) && u.write([]byte(text[j:])) && u.complete()
				if valid != utf8.ValidString(text) {
					t.Errorf("%q cut at %d and %d: got %v", text, i, j, valid)
				}
			}
		}
	}
}
