package header

import (
	"net/http"
	"testing"
)

func TestSplitHost(t *testing.T) {
	header := http.Header{"host": {"a.test"}, "X-Token": {"x"}}
	rest, host := SplitHost(header, "b.test")
	if host != "a.test" || len(rest) != 1 || len(header) != 2 {
		t.Errorf("split into %v and %q; the original is %v", rest, host, header)
	}
}

func TestBadHost(t *testing.T) {
	for host, good := range map[string]bool{
		"": true, "a.test": true, "a.test:80": true, "[::1]:80": true, "10.0.0.1": true, "x_y.test": true,
		"a b": false, "http://a.test": false, "a.test/": false, "user@a.test": false, "a\r\nX: y": false, "é.test": false,
	} {
		if bad := BadHost(host); (bad == "") != good {
			t.Errorf("BadHost(%q) = %q", host, bad)
		}
	}
}

func TestRecognizable(t *testing.T) {
	header := http.Header{"user-agent": {"a"}, "COOKIE": {"b=c"}, "Cookie": {"d=e"}, "x-token": {"f"}}
	got := Recognizable(header)
	if len(got["Cookie"]) != 2 || got.Get("User-Agent") != "a" || len(got) != 3 {
		t.Errorf("got %v", got)
	}
	if len(header) != 4 || len(header["Cookie"]) != 1 {
		t.Errorf("the original is %v", header)
	}
}
