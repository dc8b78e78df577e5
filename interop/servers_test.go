package interop

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// push pushes without pause. It prints "answered" at the first answer to a push of this
// process.
func push(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow() //nolint:errcheck // nothing depends on it
	mine := fmt.Sprintf("push of %d: ", os.Getpid())
	go func() {
		for answered := false; ; {
			_, data, err := conn.Read(r.Context())
			if err != nil {
				return
			}
			if !answered && strings.HasPrefix(string(data), mine) {
				answered = true
				fmt.Println("answered")
			}
		}
	}()
	text := []byte(mine + strings.Repeat("x", 100))
	for conn.Write(r.Context(), websocket.MessageText, text) == nil {
	}
}

// numberOfJobs is the number of jobs. They are numbered from 0.
const numberOfJobs = 200

// desk is the state of jobs.
var desk struct {
	mu      sync.Mutex
	session int // the latest
	next    int // the first job not yet acknowledged
}

// jobs hands out one job at a time, as "job/session", and expects the same text as
// acknowledgement. It ends the session at a random time, or if it gets an acknowledgement
// for another session. A job that is not acknowledged is handed out again in the next
// session. It prints "acknowledged" with the job, or "stale".
func jobs(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow() //nolint:errcheck // nothing depends on it
	drop := time.AfterFunc(upTo(60*time.Millisecond), func() {
		if rand.IntN(2) == 0 {
			_ = conn.CloseNow()
			return
		}
		_ = conn.Close(websocket.StatusGoingAway, "at random")
	})
	defer drop.Stop()
	desk.mu.Lock()
	desk.session++
	session, job := desk.session, desk.next
	desk.mu.Unlock()
	for job < numberOfJobs {
		out := fmt.Sprintf("%d/%d", job, session)
		if conn.Write(r.Context(), websocket.MessageText, []byte(out)) != nil {
			return
		}
		_, data, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		if job = acknowledge(session, out, string(data)); job < 0 {
			return
		}
	}
	drop.Stop()
	_ = conn.Write(r.Context(), websocket.MessageText, []byte("done"))
	_, _, _ = conn.Read(r.Context()) // until the client closes
}

// acknowledge checks data, which a session received as acknowledgement of out. It
// returns the next job, or -1 to end the session.
func acknowledge(session int, out, data string) (next int) {
	desk.mu.Lock()
	defer desk.mu.Unlock()
	switch {
	case data != out:
		fmt.Println("stale", data, "for", out)
		return -1
	case session != desk.session: // the job was handed out again
		return -1
	}
	fmt.Println("acknowledged", desk.next)
	desk.next++
	return desk.next
}

// upTo returns a random duration below d.
func upTo(d time.Duration) time.Duration { return rand.N(d) }

// connections are the connections of topics.
var connections struct {
	mu    sync.Mutex
	open  map[*websocket.Conn]bool
	fatal int // if positive, the number of the subscription that cuts the next session
}

// subscribedTwice is the close code for a session that subscribes twice to a topic.
const subscribedTwice = websocket.StatusCode(4000)

// topics reads names of topics as subscriptions, confirms each with "ok topic", and
// pushes the names of all subscribed topics in turn. It closes a session that subscribes
// twice to a topic.
//
// A request for /cut?n cuts all connections. If n is not 0, the next connection is cut,
// too, at its nth subscription.
func topics(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/cut" {
		w.Header().Set("Connection", "close")
		fatal, _ := strconv.Atoi(r.URL.RawQuery)
		cut(fatal)
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow() //nolint:errcheck // nothing depends on it
	fatal := enter(conn)
	defer leave(conn)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	subscribed := make(chan string)
	go func() {
		defer cancel()
		subscribe(ctx, conn, fatal, subscribed)
	}()
	feed(ctx, conn, subscribed)
}

// subscribe reads subscriptions and passes them on, up to the fatal one.
func subscribe(ctx context.Context, conn *websocket.Conn, fatal int, subscribed chan<- string) {
	seen := make(map[string]bool)
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return
		}
		topic := string(data)
		switch {
		case seen[topic]:
			fmt.Println("twice", topic)
			_ = conn.Close(subscribedTwice, "subscribed twice to "+topic)
			return
		case len(seen)+1 == fatal:
			<-time.After(upTo(20 * time.Millisecond)) // time to add topics
			_ = conn.CloseNow()
			return
		}
		seen[topic] = true
		select {
		case subscribed <- topic:
		case <-ctx.Done():
			return
		}
	}
}

// feed confirms subscriptions and pushes topics.
func feed(ctx context.Context, conn *websocket.Conn, subscribed <-chan string) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var names []string
	for i := 0; ; {
		text := ""
		select {
		case topic := <-subscribed:
			names = append(names, topic)
			text = "ok " + topic
		case <-tick.C:
			if len(names) == 0 {
				continue
			}
			text = names[i%len(names)]
			i++
		case <-ctx.Done():
			return
		}
		if conn.Write(ctx, websocket.MessageText, []byte(text)) != nil {
			return
		}
	}
}

// enter records a connection, and returns the number of the subscription that cuts it,
// or 0.
func enter(conn *websocket.Conn) (fatal int) {
	connections.mu.Lock()
	defer connections.mu.Unlock()
	if connections.open == nil {
		connections.open = make(map[*websocket.Conn]bool)
	}
	connections.open[conn] = true
	fatal, connections.fatal = connections.fatal, 0
	return fatal
}

func leave(conn *websocket.Conn) {
	connections.mu.Lock()
	defer connections.mu.Unlock()
	delete(connections.open, conn)
}

// cut cuts all connections, and the next one at its subscription of number fatal.
func cut(fatal int) {
	connections.mu.Lock()
	defer connections.mu.Unlock()
	connections.fatal = fatal
	for conn := range connections.open {
		_ = conn.CloseNow()
	}
}
