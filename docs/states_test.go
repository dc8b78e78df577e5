package docs

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// transitions is a log handler that notes the client's changes of state.
type transitions struct {
	mu   sync.Mutex
	seen []string // "from --> to"
}

func (*transitions) Enabled(context.Context, slog.Level) bool { return true }
func (t *transitions) WithAttrs([]slog.Attr) slog.Handler     { return t }
func (t *transitions) WithGroup(string) slog.Handler          { return t }

func (t *transitions) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "state" {
		return nil
	}
	values := make(map[string]string)
	r.Attrs(func(a slog.Attr) bool {
		values[a.Key] = a.Value.String()
		return true
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen = append(t.seen, values["from"]+" --> "+values["to"])
	return nil
}

func (t *transitions) all() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.seen)
}

// line is a network that a test takes away and gives back.
type line struct {
	mu      sync.Mutex
	cut     bool
	changed func()
}

func (l *line) Online() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.cut
}

func (l *line) OnChange(changed func()) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed = changed
	return func() {}
}

func (l *line) set(online bool) {
	l.mu.Lock()
	l.cut = !online
	changed := l.changed
	l.mu.Unlock()
	if changed != nil {
		changed()
	}
}

// stage is a client in virtual time, its server and its network.
type stage struct {
	transitions
	t      *testing.T
	server *resocktest.Server
	line   line
	client *resock.Client
}

// newStage returns a stage whose server does steps. Its client is closed when the test
// ends.
func newStage(t *testing.T, steps ...resocktest.Step) *stage {
	s := &stage{t: t, server: resocktest.NewMemory(t)}
	s.server.Script(steps...)
	client, err := resock.New(s.server.URL,
		resock.WithHTTPClient(s.server.Client()), resock.WithNetwork(&s.line), resock.WithLogger(slog.New(s)))
	if err != nil {
		t.Fatal(err)
	}
	s.client = client
	t.Cleanup(func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
	})
	return s
}

func (s *stage) run() { go s.client.Run(context.Background()) }

// await waits until the client is in a state.
func (s *stage) await(state resock.State) {
	s.t.Helper()
	for range 10_000 {
		synctest.Wait()
		if s.client.State() == state {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Fatalf("the client is %v, want %v; so far %v", s.client.State(), state, s.all())
}

// The picture in the README shows every state, and each of its arrows is one that the
// client takes.
func TestPictureOfTheStates(t *testing.T) {
	drawn := picture(t)
	for state := resock.StateIdle; state <= resock.StateClosed; state++ {
		if !slices.ContainsFunc(drawn, func(arrow string) bool { return strings.Contains(arrow, state.String()) }) {
			t.Errorf("the picture has no state %v", state)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		seen := theStory(t)
		for _, arrow := range drawn {
			if !slices.Contains(seen, arrow) {
				t.Errorf("the picture has %q, which did not happen", arrow)
			}
		}
		for _, arrow := range seen {
			if !slices.Contains(drawn, arrow) {
				t.Errorf("%q happened, which is not in the picture", arrow)
			}
		}
	})
}

// picture returns the arrows in the README, except for those from and to its dots.
func picture(t *testing.T) (arrows []string) {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, drawing, _ := strings.Cut(string(readme), "```mermaid\nstateDiagram-v2\n")
	drawing, _, _ = strings.Cut(drawing, "```")
	arrow := regexp.MustCompile(`(?m)^ *(\w+ --> \w+)`)
	for _, match := range arrow.FindAllStringSubmatch(drawing, -1) {
		arrows = append(arrows, match[1])
	}
	if len(arrows) == 0 {
		t.Fatal("the README has no picture of the states")
	}
	return arrows
}

// theStory takes a client through all that the picture shows, and returns its transitions.
func theStory(t *testing.T) []string {
	s := newStage(t, resocktest.Refuse(), resocktest.Hold())
	s.run()
	s.server.Accept() // by the second attempt
	s.await(resock.StateOpen)
	s.client.Reconnect()
	conn := s.server.Accept()
	s.await(resock.StateOpen)
	s.client.Suspend()
	s.await(resock.StateSuspended)
	<-conn.Done()
	s.client.Resume()
	s.server.Accept()
	s.await(resock.StateOpen)
	s.server.Stop()
	s.await(resock.StateWaiting)
	s.line.set(false)
	s.await(resock.StateOffline)
	s.server.Restart()
	s.line.set(true)
	s.await(resock.StateOpen)
	_ = s.client.Close(resock.StatusNormalClosure, "")
	<-s.client.Done()
	return s.all()
}

// Suspended, offline and closed can be reached from every other state but closed, as the
// README says below the picture.
func TestStatesReachedFromEverywhere(t *testing.T) {
	reach := map[resock.State]func(s *stage){
		resock.StateIdle:       func(*stage) {},
		resock.StateConnecting: func(s *stage) { s.server.Script(resocktest.StallDial()); s.run() },
		resock.StateOpen:       (*stage).run,
		resock.StateWaiting:    func(s *stage) { s.server.Script(resocktest.Refuse()); s.run() },
		resock.StateOffline:    func(s *stage) { s.line.set(false); s.run() },
		resock.StateSuspended:  func(s *stage) { s.client.Suspend(); s.run() },
	}
	lead := map[resock.State]func(s *stage){
		resock.StateSuspended: func(s *stage) { s.client.Suspend() },
		resock.StateOffline:   func(s *stage) { s.line.set(false); s.server.Stop(); s.client.Resume() },
		resock.StateClosed:    func(s *stage) { _ = s.client.Close(resock.StatusNormalClosure, "") },
	}
	for _, from := range slices.Sorted(maps.Keys(reach)) {
		for _, to := range slices.Sorted(maps.Keys(lead)) {
			if from == to {
				continue
			}
			t.Run(fmt.Sprint(from, " to ", to), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newStage(t, resocktest.Hold())
					reach[from](s)
					s.await(from)
					lead[to](s)
					if from == resock.StateIdle {
						s.run()
					}
					s.await(to)
					if want, seen := fmt.Sprint(from, " --> ", to), s.all(); seen[len(seen)-1] != want {
						t.Errorf("the client went %v, want %q at last", seen, want)
					}
				})
			})
		}
	}
}
