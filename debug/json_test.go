package debug

import (
	"errors"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/resock/resock"
)

// TestJSONIsDocumented compares the fields with the package documentation.
func TestJSONIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(doc), "# JSON")
	text, _, _ = strings.Cut(text, "# Cost")
	var documented []string
	for _, line := range regexp.MustCompile(`(?m)^//\t.*$`).FindAllString(text, -1) {
		documented = append(documented, regexp.MustCompile(`\w+`).FindAllString(line, -1)...)
	}
	words := strings.Join(documented, " ") + " "
	for _, of := range []any{report{}, head{}, view{}, rates{}, span{}, end{}} {
		for _, field := range reflect.VisibleFields(reflect.TypeOf(of)) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name != "" && !strings.Contains(words, name+" ") {
				t.Errorf("%T has %s, which is not documented", of, name)
			}
		}
	}
}

func TestCut(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"abcd", "abcd"},
		{"abcde", "abcd…"},
		{"abcé", "abc…"}, // 5 bytes
		{"abcéd", "abc…"},
	} {
		if got := cut(tt.text, 4); got != tt.want {
			t.Errorf("cut(%q) is %q, want %q", tt.text, got, tt.want)
		}
	}
}

// TestSteady says which changes of a client a stream does not tell.
func TestSteady(t *testing.T) {
	now := time.Now()
	down := resock.Stats{State: resock.StateWaiting, Since: now, Downtime: time.Second, LastErr: errors.New("x")}
	later := down
	later.Downtime = time.Hour // the page counts on
	if headOf(down).steady() != headOf(later).steady() {
		t.Error("a client that is down changes all the time")
	}
	later.Queued++
	if headOf(down).steady() == headOf(later).steady() {
		t.Error("a message that was queued is no change")
	}
}
