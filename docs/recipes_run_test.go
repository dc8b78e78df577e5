package docs

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// snippet: behind-a-balancer
// behindBalancer returns a client for a server behind a load balancer that cuts silent
// connections after 60 s, and all connections after an hour.
func behindBalancer() (*resock.Client, error) {
	return resock.New("wss://example.com/feed",
		resock.WithHeartbeat(25*time.Second, 10*time.Second), // below half of 60 s
		resock.WithMaxSessionAge(50*time.Minute))             // below an hour; at random between 45 and 50
}

// end of snippet

func TestBehindBalancer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := serve(t)
		client, err := behindBalancer()
		start(t, client, err)
		first := server.Accept()
		began := time.Now()
		server.Accept()
		if age := time.Since(began); age < 45*time.Minute || age > 50*time.Minute {
			t.Errorf("the connection was replaced after %v, want 45 to 50 minutes", age)
		}
		pings := first.Received().Pings
		for i := 1; i < len(pings); i++ {
			if gap := pings[i].Time.Sub(pings[i-1].Time); gap > 30*time.Second {
				t.Errorf("a gap of %v between two pings", gap)
			}
		}
		if len(pings) < 100 {
			t.Errorf("%d pings in 45 minutes", len(pings))
		}
	})
}

// snippet: shutdown
// serveUntil runs a client until stop ends, in a program by
// signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt). Then it sends what is queued.
func serveUntil(stop context.Context, client *resock.Client) error {
	go client.Run(context.Background()) // not stop: its end would close at once, and send nothing
	select {
	case <-stop.Done():
	case <-client.Done(): // it has given up
		return client.Err()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // of terminationGracePeriodSeconds: 30
	defer cancel()
	return client.Shutdown(ctx)
}

// end of snippet

func TestServeUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := serve(t, resocktest.Refuse(), resocktest.Hold())
		client, err := resock.New("wss://example.com/feed")
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Enqueue(resock.MessageText, []byte("last words")); err != nil {
			t.Fatal(err)
		}
		stop, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Millisecond, cancel) // while there is no connection
		ended := make(chan error, 1)
		go func() { ended <- serveUntil(stop, client) }()
		expect(t, server.Accept(), "last words")
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// snippet: fleet
// ofMany returns one client of a fleet of 20,000, whose server takes 500 connections a
// second: after a restart, all of them need 40 s to come back.
func ofMany() (*resock.Client, error) {
	return resock.New("wss://example.com/feed",
		resock.WithBackoff(40*time.Second, 2*time.Minute))
}

// end of snippet

func TestFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := serve(t)
		var later int
		for range 20 {
			client, err := ofMany()
			if err != nil {
				t.Fatal(err)
			}
			events := client.Subscribe(t.Context(), resock.WithoutMessages())
			start(t, client, err)
			conn := server.Accept()
			<-events
			time.Sleep(10 * time.Second)
			_ = conn.Close(resock.StatusServiceRestart, "deploying")
			closed, ok := (<-events).(resock.CloseEvent)
			if !ok || closed.Rule != "server busy" || closed.RetryIn > 80*time.Second {
				t.Errorf("after 1012 came %+v, want a close, and a delay of 80 s at most", closed)
			}
			if closed.RetryIn > 10*time.Second {
				later++
			}
			_ = client.Close(resock.StatusNormalClosure, "")
		}
		if later < 5 {
			t.Errorf("%d of 20 clients wait longer than 10 s", later)
		}
	})
}

// counter is a program to be tested: it counts the messages that it receives.
type counter struct {
	client *resock.Client
	count  atomic.Int64
}

func newCounter(url string, opts ...resock.Option) (*counter, error) {
	c := new(counter)
	client, err := resock.New(url, append(opts, resock.WithMessageHandler(
		func(context.Context, resock.MessageEvent) { c.count.Add(1) }))...)
	c.client = client
	return c, err
}

// snippet: test
func TestCounterSurvivesAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // virtual time: an hour takes none
		server := resocktest.NewMemory(t)
		counter, err := newCounter(server.URL, resock.WithHTTPClient(server.Client()))
		if err != nil {
			t.Fatal(err)
		}
		go counter.client.Run(t.Context())

		conn := server.Accept()
		conn.Push("one")
		synctest.Wait() // until the client has it
		server.Stop()   // the connection is lost, and further ones are refused
		time.Sleep(time.Hour)
		server.Restart()
		conn = server.Accept()
		conn.Push("two")
		synctest.Wait()
		if got := counter.count.Load(); got != 2 {
			t.Errorf("counted %d messages, want 2", got)
		}

		counter.client.Close(resock.StatusNormalClosure, "")
		<-counter.client.Done() // all goroutines of a bubble must end
	})
}

// end of snippet

// snippet: replay
// replay pushes the messages of a recording of the tool, made by resock -record, and ends
// the connection as the recorded session ended.
func replay(conn *resocktest.Conn, recording io.Reader) error {
	lines := json.NewDecoder(bufio.NewReader(recording))
	for {
		var line struct {
			Event, Text, Reason string
			Binary              []byte // base64
			Code                int
		}
		if err := lines.Decode(&line); err != nil {
			return err
		}
		switch line.Event {
		case "message":
			if line.Binary != nil {
				_ = conn.PushBinary(line.Binary)
			} else {
				_ = conn.Push(line.Text)
			}
		case "close":
			return conn.Close(resock.StatusCode(line.Code), line.Reason)
		case "fail":
			conn.Drop()
			return nil
		}
	}
}

// end of snippet

func TestReplay(t *testing.T) {
	file, err := os.Open("testdata/recording.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	synctest.Test(t, func(t *testing.T) {
		server := serve(t)
		client, err := resock.New("wss://example.com/feed")
		if err != nil {
			t.Fatal(err)
		}
		events := client.Subscribe(t.Context())
		start(t, client, err)
		if err := replay(server.Accept(), file); err != nil {
			t.Fatal(err)
		}
		var got []string
		for event := range events {
			switch e := event.(type) {
			case resock.MessageEvent:
				got = append(got, string(e.Data))
			case resock.CloseEvent:
				if text := strings.Join(got, ","); text != "push 1,push 2,push 3" || e.Code != resock.StatusServiceRestart {
					t.Errorf("got %s and code %d", text, e.Code)
				}
				return
			}
		}
	})
}
