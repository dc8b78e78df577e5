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

// push pushes all the time, whatever it reads. It prints the first answer to a push of
// this very process.
func push(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow() //nolint:errcheck // it is over
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

// numberOfJobs is how many jobs there are, numbered from 0.
const numberOfJobs = 200

// desk is what jobs knows.
var desk struct {
	mu      sync.Mutex
	session int // the last one
	next    int // the first job that is not acknowledged
}

// jobs hands out one job at a time, as "job/session", until its acknowledgement, which
// is the same text. It drops the session at random, and when an acknowledgement is of
// what was handed out in another one. A job that is not acknowledged is handed out again
// in the next session. It prints "acknowledged" with the job, or "stale".
func jobs(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow() //nolint:errcheck // it is over
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
	_, _, _ = conn.Read(r.Context()) // until the client leaves
}

// acknowledge takes what a session got as acknowledgement of what was handed out, and
// returns the next job, or -1 if the session is over.
func acknowledge(session int, out, data string) (next int) {
	desk.mu.Lock()
	defer desk.mu.Unlock()
	switch {
	case data != out:
		fmt.Println("stale", data, "for", out)
		return -1
	case session != desk.session: // which has the job now
		return -1
	}
	fmt.Println("acknowledged", desk.next)
	desk.next++
	return desk.next
}

// upTo returns a random time.
func upTo(d time.Duration) time.Duration { return rand.N(d) }

// connections are those of topics.
var connections struct {
	mu    sync.Mutex
	open  map[*websocket.Conn]bool
	fatal int // if positive: the subscription of the next session that cuts it
}

// topics takes the names of topics as subscriptions, confirms each by "ok topic", and
// pushes the names of all that are subscribed to, again and again. It closes a session
// that subscribes twice with 4000.
//
// Of the path /cut it cuts all connections, and in the next one the subscription whose
// number, counted from 1, is in the query, unless that is 0.
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
	defer conn.CloseNow() //nolint:errcheck // it is over
	fatal := enter(conn)
	defer leave(conn)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	subscribed := make(chan string)
	go func() {
		defer cancel()
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
				_ = conn.Close(4000, "subscribed twice to "+topic)
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
	}()
	feed(ctx, conn, subscribed)
}

// feed pushes and confirms.
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

func cut(fatal int) {
	connections.mu.Lock()
	defer connections.mu.Unlock()
	connections.fatal = fatal
	for conn := range connections.open {
		_ = conn.CloseNow()
	}
}
