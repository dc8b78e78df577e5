package interop

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
)

// application is a client and the goroutines of the program that uses it.
type application struct {
	*resock.Client
	t     *testing.T
	tasks sync.WaitGroup
}

// launch runs a client, until the end of the test at the latest, and calls handle for
// each of its events.
func launch(t *testing.T, client *resock.Client, handle func(resock.Event)) *application {
	t.Helper()
	a := &application{Client: client, t: t}
	events := client.Subscribe(context.Background())
	a.tasks.Go(func() {
		for event := range new(grammar.Checker).All(t, events) {
			handle(event)
		}
	})
	a.tasks.Go(func() {
		if err := client.Run(context.Background()); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(a.close)
	return a
}

// close closes the client, and expects all goroutines to end within the close timeout.
func (a *application) close() {
	began := time.Now()
	_ = a.Close(resock.StatusNormalClosure, "bye")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.tasks.Wait()
	}()
	select {
	case <-ended:
		const timeout, slack = 5 * time.Second, 2 * time.Second
		if took := time.Since(began); took > timeout+slack {
			a.t.Errorf("closing took %v, with a close timeout of %v", took, timeout)
		}
	case <-time.After(patience):
		a.t.Errorf("not closed after %v: %+v", patience, a.Stats())
	}
}

// answer sends a message back, and waits for a session for as long as it takes.
func answer(t *testing.T, client *resock.Client, m resock.MessageEvent) {
	err := client.Send(context.Background(), m.Type, m.Data)
	if err != nil && !errors.Is(err, resock.ErrMaybeSent) && !errors.Is(err, resock.ErrClosed) {
		t.Errorf("Send: %v", err)
	}
}

// survivesKills kills the push server ten times. Each time, the client must reconnect
// and answers must arrive at the new server.
func (a *application) survivesKills(address string, server *process) {
	a.t.Helper()
	const kills = 10
	for session := uint64(0); ; server = startServer(a.t, "push", address) {
		if line := server.line(time.After(patience)); line != "answered" {
			a.t.Fatalf("the server printed %q", line)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := a.WaitOpen(ctx)
		cancel()
		stats := a.Stats()
		if err != nil || stats.Session <= session {
			a.t.Fatalf("session %d, want one after %d; error %v", stats.Session, session, err)
		}
		if session++; session > kills {
			return
		}
		<-time.After(upTo(100 * time.Millisecond))
		server.kill()
		<-time.After(upTo(50 * time.Millisecond))
	}
}

func TestConsumerAnswersAcrossKills(t *testing.T) {
	address := address(t)
	server := startServer(t, "push", address)
	client := newClient(t, "ws://"+address)
	a := launch(t, client, func(event resock.Event) {
		if m, ok := event.(resock.MessageEvent); ok {
			answer(t, client, m)
		}
	})
	a.survivesKills(address, server)
	a.close()
}

func TestHandlerAnswersAcrossKills(t *testing.T) {
	address := address(t)
	server := startServer(t, "push", address)
	var client *resock.Client
	client = newClient(t, "ws://"+address, resock.WithMessageHandler(func(_ context.Context, m resock.MessageEvent) {
		answer(t, client, m)
	}))
	a := launch(t, client, func(resock.Event) {})
	a.survivesKills(address, server)
	a.close()
}

// TestJobs acknowledges each job in the session that it came from, or not at all.
func TestJobs(t *testing.T) {
	address := address(t)
	server := startServer(t, "jobs", address)
	client := newClient(t, "ws://"+address, resock.WithStableAfter(0))
	var late atomic.Int64
	acknowledge := func(m resock.MessageEvent) {
		<-time.After(upTo(20 * time.Millisecond)) // the work
		var err error
		if inSession := resock.WithSession(m.Session); rand.IntN(2) == 0 {
			err = client.Send(context.Background(), m.Type, m.Data, inSession)
		} else {
			err = enqueue(client, m.Type, m.Data, inSession)
		}
		switch {
		case errors.Is(err, resock.ErrSessionOver):
			late.Add(1)
		case err != nil && !errors.Is(err, resock.ErrMaybeSent):
			t.Errorf("acknowledging %s: %v", m.Data, err)
		}
	}
	var work sync.WaitGroup
	done := make(chan struct{})
	noMore := sync.OnceFunc(func() { close(done) })
	a := launch(t, client, func(event resock.Event) {
		switch m, ok := event.(resock.MessageEvent); {
		case !ok:
		case string(m.Data) == "done":
			noMore()
		default:
			work.Go(func() { acknowledge(m) })
		}
	})
	select {
	case <-done:
	case <-time.After(patience):
		t.Errorf("not done after %v: %+v", patience, client.Stats())
	}
	work.Wait()
	a.close()
	server.stop()
	wantEachJobOnce(t, server.rest())
	opens := client.Stats().Opens
	t.Logf("%d sessions, %d acknowledgements too late", opens, late.Load())
	if opens < 10 || late.Load() == 0 {
		t.Error("too few of either to prove anything")
	}
}

// wantEachJobOnce checks what jobs printed.
func wantEachJobOnce(t *testing.T, lines iter.Seq[string]) {
	t.Helper()
	acknowledged := make(map[string]int)
	for line := range lines {
		job, ok := strings.CutPrefix(line, "acknowledged ")
		if !ok {
			t.Error(line)
		}
		acknowledged[job]++
	}
	for job := range numberOfJobs {
		if n := acknowledged[fmt.Sprint(job)]; n != 1 {
			t.Errorf("job %d was acknowledged %d times", job, n)
		}
	}
}

// enqueue enqueues a message and returns its outcome.
func enqueue(client *resock.Client, typ resock.MessageType, data []byte, opts ...resock.SendOption) error {
	outcome := make(chan error, 1)
	opts = append(opts, resock.WithResult(func(err error) { outcome <- err }))
	if err := client.Enqueue(typ, data, opts...); err != nil {
		return err
	}
	return <-outcome
}

// subscriptions is a growing set of topics. Each session subscribes once to each.
type subscriptions struct {
	client *resock.Client

	mu      sync.Mutex
	topics  []string
	session uint64 // the last one whose OnOpen took the topics
}

// replay is the OnOpen hook.
func (s *subscriptions) replay(ctx context.Context, session *resock.Session) error {
	s.mu.Lock()
	topics := slices.Clone(s.topics)
	s.session = session.ID()
	s.mu.Unlock()
	for _, topic := range topics {
		if err := session.Send(ctx, resock.MessageText, []byte(topic)); err != nil {
			return err
		}
	}
	for missing := len(topics); missing > 0; {
		typ, data, err := session.Receive(ctx)
		if err != nil {
			return err
		}
		if strings.HasPrefix(string(data), "ok ") {
			missing--
		} else {
			session.Unread(typ, data)
		}
	}
	return nil
}

// add adds a topic, and subscribes to it in the session whose OnOpen missed it; the next
// one includes it. Enqueue is called under the lock, since after a failure of OnOpen
// the next connection has the same session number.
func (s *subscriptions) add(topic string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.topics = append(s.topics, topic)
	if s.session == 0 {
		return nil
	}
	err := s.client.Enqueue(resock.MessageText, []byte(topic), resock.WithSession(s.session))
	if errors.Is(err, resock.ErrSessionOver) {
		return nil
	}
	return err
}

func (s *subscriptions) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.topics)
}

// topicsTest is a client of the topics server.
type topicsTest struct {
	*application
	address string
	subs    *subscriptions
	pushes  sync.Map // topic: session of its last push
}

func newTopicsTest(t *testing.T, address string) *topicsTest {
	t.Helper()
	subs := &subscriptions{topics: []string{"first"}}
	subs.client = newClient(t, "ws://"+address, resock.WithStableAfter(0), resock.WithOnOpen(subs.replay))
	test := &topicsTest{address: address, subs: subs}
	test.application = launch(t, subs.client, func(event resock.Event) {
		switch e := event.(type) {
		case resock.MessageEvent:
			test.pushes.Store(string(e.Data), e.Session)
		case resock.CloseEvent:
			if e.Code == subscribedTwice {
				t.Errorf("session %d: %s", e.Session, e.Reason)
			}
		}
	})
	return test
}

// pushed reports whether every topic was pushed in the open session, and that is a later
// one than after.
func (test *topicsTest) pushed(after uint64) bool {
	stats := test.Stats()
	return stats.State == resock.StateOpen && stats.Session > after && !slices.ContainsFunc(test.subs.all(), func(topic string) bool {
		session, _ := test.pushes.Load(topic)
		return session != stats.Session
	})
}

// addWhileCut adds topics while the server cuts all connections and, if again is not 0,
// the next one too, at the subscription of that number.
func (test *topicsTest) addWhileCut(prefix string, again func() int) {
	test.t.Helper()
	var adders sync.WaitGroup
	for adder := range 2 {
		adders.Go(func() {
			for i := range 3 {
				<-time.After(upTo(10 * time.Millisecond))
				if err := test.subs.add(fmt.Sprintf("%s.%d.%d", prefix, adder, i)); err != nil {
					test.t.Error(err)
				}
			}
		})
	}
	<-time.After(upTo(20 * time.Millisecond))
	response, err := http.Get(fmt.Sprintf("http://%s/cut?%d", test.address, again()))
	if err != nil {
		test.t.Fatal(err)
	}
	_ = response.Body.Close()
	adders.Wait()
}

// TestTopics adds topics while the server cuts the connection twenty times, half of them
// twice in a row: the second cut is during OnOpen or soon after.
func TestTopics(t *testing.T) {
	const cuts = 20
	address := address(t)
	server := startServer(t, "topics", address)
	test := newTopicsTest(t, address)
	eventually(t, "the first push", func() bool { return test.pushed(0) })
	for n := range cuts {
		session := test.Stats().Session
		test.addWhileCut(fmt.Sprintf("topic %d", n), func() int {
			if n%2 == 0 {
				return 0
			}
			return max(1, len(test.subs.all())-4+rand.IntN(8))
		})
		eventually(t, "a push of every topic", func() bool { return test.pushed(session) })
	}
	stats := test.Stats()
	t.Logf("%d sessions, %d failures", stats.Opens, stats.Fails)
	if stats.Opens <= cuts {
		t.Errorf("%d sessions for %d cuts", stats.Opens, cuts)
	}
	test.close()
	server.stop()
	for line := range server.rest() {
		t.Error(line)
	}
}

// eventually waits until holds returns true.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); <-time.After(pollEvery) {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", patience, what)
		}
	}
}
