// Package snippets tests the code of docs/migrating.md and docs/recipes.md that needs more
// modules than resock: programs for other libraries, and what becomes of them.
package snippets

import (
	"context"
	"errors"
	"log"
	"math/rand/v2"
	"sync"
	"time"

	coder "github.com/coder/websocket"
	"github.com/gorilla/websocket"
	"github.com/lxzan/gws"
	"github.com/recws-org/recws"
)

// snippet: gorilla-before
// feed is a wrapper as programs have it.
type feed struct {
	url    string
	handle func([]byte)

	mu   sync.Mutex
	conn *websocket.Conn
}

func (f *feed) run(ctx context.Context) {
	delay := time.Second
	for ctx.Err() == nil {
		conn, _, err := websocket.DefaultDialer.DialContext(ctx, f.url, nil)
		if err != nil {
			log.Print(err)
			select {
			case <-time.After(delay/2 + rand.N(delay/2)):
			case <-ctx.Done():
			}
			delay = min(2*delay, time.Minute)
			continue
		}
		delay = time.Second
		f.session(ctx, conn)
	}
}

func (f *feed) session(ctx context.Context, conn *websocket.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(40 * time.Second))
	conn.SetPongHandler(func(string) error {
		return conn.SetReadDeadline(time.Now().Add(40 * time.Second))
	})
	f.set(conn)
	defer f.set(nil)
	go f.ping(ctx, conn)
	if f.send("register me") != nil {
		return
	}
	for {
		_, data, err := conn.ReadMessage()
		if err != nil {
			log.Print(err)
			return
		}
		f.handle(data)
	}
}

func (f *feed) ping(ctx context.Context, conn *websocket.Conn) {
	ticker := time.NewTicker(15 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(10*time.Second))
		case <-ctx.Done():
			return
		}
	}
}

func (f *feed) send(text string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn == nil {
		return errors.New("not connected")
	}
	return f.conn.WriteMessage(websocket.TextMessage, []byte(text))
}

func (f *feed) set(conn *websocket.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn = conn
}

// end of snippet

// snippet: recws-before
func receiveByRecws(ctx context.Context, url string, handle func([]byte)) {
	conn := &recws.RecConn{KeepAliveTimeout: 25 * time.Second, NonVerbose: true}
	conn.SubscribeHandler = func() error {
		return conn.WriteMessage(websocket.TextMessage, []byte("register me"))
	}
	conn.Dial(url, nil) // takes 2 s
	for ctx.Err() == nil {
		if !conn.IsConnected() {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		_, data, err := conn.ReadMessage()
		if err != nil {
			log.Print(err)
			continue
		}
		handle(data)
	}
	conn.Close()
}

// end of snippet

// snippet: coder-before
func receiveByCoder(ctx context.Context, url string, handle func([]byte)) {
	for ctx.Err() == nil {
		if err := session(ctx, url, handle); err != nil {
			log.Print(err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

func session(ctx context.Context, url string, handle func([]byte)) error {
	conn, _, err := coder.Dial(ctx, url, nil)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	if err := conn.Write(ctx, coder.MessageText, []byte("register me")); err != nil {
		return err
	}
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		handle(data)
	}
}

// end of snippet

// snippet: gws-before
type handler struct {
	gws.BuiltinEventHandler
	handle func([]byte)
}

func (h *handler) OnOpen(conn *gws.Conn) { conn.WriteString("register me") }

func (h *handler) OnMessage(_ *gws.Conn, message *gws.Message) {
	defer message.Close() // its buffer goes back to the pool
	h.handle(message.Bytes())
}

func receiveByGws(ctx context.Context, url string, handle func([]byte)) {
	for ctx.Err() == nil {
		conn, _, err := gws.NewClient(&handler{handle: handle}, &gws.ClientOption{Addr: url})
		if err != nil {
			log.Print(err)
			time.Sleep(time.Second)
			continue
		}
		stop := context.AfterFunc(ctx, func() { conn.WriteClose(1000, nil) })
		conn.ReadLoop() // until the connection ends
		stop()
	}
}

// end of snippet
