package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/outbox"
	"github.com/resock/resock/outbox/journal"
	"github.com/resock/resock/resocktest"
	"github.com/resock/resock/resume"
)

// snippet: server-pings
// answering returns a client that answers the server's own heartbeat, which no subscriber
// sees. Protocol pings (RFC 6455) need no code: they are answered anyway.
func answering() (client *resock.Client, err error) {
	client, err = resock.New("wss://example.com/feed",
		resock.WithIdleTimeout(time.Minute), // this server promises a heartbeat every 20 s
		resock.WithFilter(func(_ context.Context, m resock.MessageEvent) (pass bool) {
			if string(m.Data) != `{"op":"ping"}` {
				return true
			}
			// On another connection the answer would mean nothing, hence WithSession.
			_ = client.Enqueue(resock.MessageText, []byte(`{"op":"pong"}`), resock.WithSession(m.Session))
			return false
		}))
	return client, err
}

// end of snippet

func TestServerPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := serve(t)
		client, err := answering()
		if err != nil {
			t.Fatal(err)
		}
		messages := client.Messages(t.Context())
		start(t, client, err)
		conn := server.Accept()
		_ = conn.Push(`{"op":"ping"}`)
		expect(t, conn, `{"op":"pong"}`)
		_ = conn.Push("news")
		for m := range messages {
			if string(m.Data) != "news" {
				t.Errorf("the subscriber got %q", m.Data)
			}
			break
		}
	})
}

// snippet: acknowledged
// jobs sends each message again, in each new session and by the next process, until the
// server has acknowledged it: "ack 7" is for all up to number 7.
func jobs(url, folder string) (*resock.Client, *outbox.Box, error) {
	store, err := journal.Open(folder, journal.Config{})
	if err != nil {
		return nil, nil, err
	}
	box, err := outbox.Open(outbox.Config{
		Store: store,
		Read: func(m resock.MessageEvent, found *outbox.Found) (pass bool) {
			number, ok := strings.CutPrefix(string(m.Data), "ack ")
			if ok {
				found.AckedUpTo(number)
			}
			return !ok
		},
	})
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	client, err := resock.New(url, resock.WithFilter(box.Filter))
	if err == nil {
		err = box.Bind(client)
	}
	if err != nil {
		return nil, nil, errors.Join(err, box.Close())
	}
	return client, box, nil // box.Put(ctx, "7", resock.MessageText, []byte("7 the text"))
}

// end of snippet

func TestAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := serve(t)
		client, box, err := jobs("wss://example.com/jobs", filepath.Join(t.TempDir(), "jobs"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = box.Close() })
		put := func(number, text string) {
			if err := box.Put(context.Background(), number, resock.MessageText, []byte(number+" "+text)); err != nil {
				t.Fatal(err)
			}
		}
		put("1", "one")
		put("2", "two")
		start(t, client, err)
		conn := server.Accept()
		expect(t, conn, "1 one", "2 two")
		put("3", "three")
		expect(t, conn, "3 three")
		_ = conn.Push("ack 1")
		synctest.Wait()
		conn.Drop()
		conn = server.Accept()
		expect(t, conn, "2 two", "3 three")
		_ = conn.Push("ack 3")
		synctest.Wait()
		conn.Drop()
		conn = server.Accept()
		synctest.Wait()
		if again := conn.Received().Messages; len(again) > 0 {
			t.Errorf("the server got %q again", again[0].Data)
		}
	})
}

// snippet: subscriptions
// topics are subscribed to in every session.
type topics struct {
	client *resock.Client

	mu      sync.Mutex
	wanted  []string
	session uint64 // that has all of wanted; 0 before the first
}

func newTopics(url string) (*topics, error) {
	t := new(topics)
	client, err := resock.New(url, resock.WithOnOpen(t.subscribe))
	t.client = client
	return t, err
}

func (t *topics) add(topic string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Contains(t.wanted, topic) {
		return nil
	}
	t.wanted = append(t.wanted, topic)
	return t.tell("subscribe " + topic)
}

func (t *topics) remove(topic string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.wanted, topic)
	if i < 0 {
		return nil
	}
	t.wanted = slices.Delete(t.wanted, i, i+1)
	return t.tell("unsubscribe " + topic)
}

// tell sends a change to the current session; mu is held. The next one gets what is wanted
// then from subscribe.
func (t *topics) tell(change string) error {
	if t.session == 0 {
		return nil
	}
	err := t.client.Enqueue(resock.MessageText, []byte(change), resock.WithSession(t.session))
	if errors.Is(err, resock.ErrSessionOver) {
		return nil
	}
	return err
}

func (t *topics) subscribe(ctx context.Context, s *resock.Session) error {
	t.mu.Lock()
	t.session = s.ID()
	wanted := slices.Clone(t.wanted)
	t.mu.Unlock()
	for _, topic := range wanted {
		if err := s.Send(ctx, resock.MessageText, []byte("subscribe "+topic)); err != nil {
			return err
		}
	}
	return nil
}

// end of snippet

func TestSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := serve(t)
		feed, err := newTopics("wss://example.com/feed")
		if err != nil {
			t.Fatal(err)
		}
		change := func(change func(string) error, topic string) {
			t.Helper()
			if err := change(topic); err != nil {
				t.Error(err)
			}
		}
		change(feed.add, "weather")
		start(t, feed.client, err)
		conn := server.Accept()
		expect(t, conn, "subscribe weather")
		change(feed.add, "traffic")
		change(feed.add, "traffic")
		change(feed.remove, "weather")
		expect(t, conn, "subscribe traffic", "unsubscribe weather")
		conn.Drop()
		synctest.Wait()
		change(feed.add, "news") // while there is no session
		conn = server.Accept()
		expect(t, conn, "subscribe traffic", "subscribe news")
	})
}

// snippet: resume
// follow hands each message to handle, and what is missing to missed, across reconnects
// and restarts: the server numbers its messages ("17 text"), and ?after=17 makes it begin
// behind one.
func follow(ctx context.Context, store resume.Store, handle func(text string), missed func(from, to uint64)) (*resock.Client, error) {
	feed, err := resume.New(ctx, resume.Config{
		Store:      store,
		AutoCommit: true, // a message is handled when the loop asks for the next
		Read: func(m resock.MessageEvent, found *resume.Found) {
			number, text, _ := bytes.Cut(m.Data, []byte(" "))
			if seq, err := strconv.ParseUint(string(number), 10, 64); err == nil {
				found.Message(resume.Position{Seq: seq}, text)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	client, err := resock.New("wss://example.com/feed",
		resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
			return resock.Endpoint{URL: fmt.Sprintf("wss://example.com/feed?after=%d", feed.Cursor("").Seq)}, nil
		}))
	if err != nil {
		return nil, err
	}
	events, err := feed.Follow(ctx, client)
	if err != nil {
		return nil, err
	}
	go func() {
		for event := range events {
			switch e := event.(type) {
			case resume.Message:
				handle(string(e.Data))
			case resume.Gap:
				missed(e.From, e.To)
			case resume.StoreError:
				slog.Error("the cursor is not saved", "err", e.Err)
			}
		}
	}()
	return client, nil
}

// end of snippet

func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := serve(t, resocktest.Serve(func(c *resocktest.Conn) {
			after := c.Request().URL.Query().Get("after")
			for number, _ := strconv.Atoi(after); number < 5; {
				number++
				_ = c.Push(fmt.Sprint(number, " message ", number))
				if number == 3 && after == "0" {
					c.Drop()
				}
			}
			_ = c.Push("5 message 5") // a server that repeats itself
			_ = c.Push("8 message 8")
		}))
		var mu sync.Mutex
		var handled []string
		note := func(text string) {
			mu.Lock()
			defer mu.Unlock()
			handled = append(handled, text)
		}
		store, err := resume.OpenFile(filepath.Join(t.TempDir(), "cursor"))
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		client, err := follow(t.Context(), store, note, func(from, to uint64) { note(fmt.Sprintf("missed %d to %d", from, to)) })
		start(t, client, err)
		server.Accept()
		server.Accept()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		want := "message 1,message 2,message 3,message 4,message 5,missed 6 to 7,message 8"
		if got := strings.Join(handled, ","); got != want {
			t.Errorf("handled %s, want %s", got, want)
		}
	})
}
