package docs

import (
	"bufio"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"html"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var record = flag.Bool("record", false, "run the quickstart, and write docs/quickstart.svg")

// printed is a line that the quickstart printed, and when.
type printed struct {
	at   time.Duration
	text string
}

// The recording shows the quickstart as it is: its story, lines in their order, and no
// more than 100 KB. With -record it is made.
func TestRecording(t *testing.T) {
	if *record {
		if err := os.WriteFile("quickstart.svg", []byte(animation(quickstart(t))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	picture := read(t, "docs/quickstart.svg")
	if len(picture) > 100_000 {
		t.Errorf("the recording has %d bytes", len(picture))
	}
	var story []string
	for _, text := range texts(t, picture) {
		_, line, found := strings.Cut(text, "  story   ")
		if found {
			story = append(story, line)
		}
	}
	said := regexp.MustCompile(`say\("story", "([^"]+)"\)`)
	var want []string
	for _, match := range said.FindAllStringSubmatch(read(t, "examples/quickstart/main.go"), -1) {
		want = append(want, match[1])
	}
	if len(want) == 0 || !slices.Equal(story, want) {
		t.Errorf("the recording tells %q, and the quickstart %q: go test ./docs -run TestRecording -record", story, want)
	}
}

// texts returns the text elements of a picture, which must be well-formed.
func texts(t *testing.T, picture string) (all []string) {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(picture))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if element, ok := token.(xml.StartElement); ok && element.Name.Local == "text" {
			var text string
			if err := decoder.DecodeElement(&text, &element); err != nil {
				t.Fatal(err)
			}
			all = append(all, text)
		}
	}
}

// quickstart runs the example and returns what it printed.
func quickstart(t *testing.T) (lines []printed) {
	t.Helper()
	command := exec.Command("go", "run", "./examples/quickstart")
	command.Dir = ".."
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	var began time.Time
	for scanner := bufio.NewScanner(output); scanner.Scan(); {
		if began.IsZero() {
			began = time.Now() // after the compiler
		}
		lines = append(lines, printed{time.Since(began), scanner.Text()})
	}
	if err := command.Wait(); err != nil {
		t.Fatal(err)
	}
	return lines
}

const (
	lineHeight = 18
	margin     = 16
	pause      = 4 * time.Second // before it begins again
)

// animation returns a picture in which the lines appear when they were printed, again and
// again, or at once where motion is not wanted.
func animation(lines []printed) string {
	var style, body strings.Builder
	cycle := lines[len(lines)-1].at + pause
	width := 0
	for i, line := range lines {
		width = max(width, len([]rune(line.text)))
		at := 100 * float64(line.at) / float64(cycle)
		fmt.Fprintf(&style, "@keyframes l%d{0%%,%.2f%%{opacity:0}%.2f%%,99.5%%{opacity:1}100%%{opacity:0}}\n", i, at, at+.01)
		fmt.Fprintf(&body, `<text class="%s" style="animation-name:l%d" x="%d" y="%d" xml:space="preserve">%s</text>`+"\n",
			strings.Fields(line.text)[1], i, margin, margin+lineHeight*(i+3), html.EscapeString(line.text))
	}
	return fmt.Sprintf(frame, 2*margin+width*8, 2*margin+lineHeight*(len(lines)+2),
		cycle.Seconds(), style.String(), margin, margin+lineHeight, body.String())
}

const frame = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="what the quickstart prints">
<style>
text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre;fill:#1f2328;animation:%.2fs step-end infinite}
rect{fill:#f6f8fa}
.prompt{animation:none;font-weight:bold}
.server{fill:#656d76}
.story{fill:#9a3412;font-weight:bold}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}rect{fill:#161b22}.server{fill:#8b949e}.story{fill:#fdba74}}
%s@media (prefers-reduced-motion:reduce){text{animation:none!important}}
</style>
<rect width="100%%" height="100%%" rx="8"/>
<text class="prompt" x="%d" y="%d">$ go run ./examples/quickstart</text>
%s</svg>
`
