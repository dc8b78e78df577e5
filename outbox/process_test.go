package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/outbox"
)

func (d *disk) snapshot() map[uint64]bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.gone)
}

// reader is Config.Read, which is slow now and then.
func (p *life) reader() func(resock.MessageEvent, *outbox.Found) bool {
	slow := time.Duration(0)
	if p.rand.IntN(4) == 0 {
		slow = p.upTo(2 * time.Second)
	}
	return func(m resock.MessageEvent, found *outbox.Found) bool {
		if len(m.Data)%3 == 0 {
			time.Sleep(slow)
		}
		return read(m, found)
	}
}

// done is Config.Done. What a dead process is told nobody knows.
func (p *life) done(r outbox.Result) {
	dead := p.store.isDead()
	p.mu.Lock()
	defer p.mu.Unlock()
	if errors.Is(r.Err, outbox.ErrSetAside) {
		p.aside = append(p.aside, receipt{r.ID, time.Now()})
	}
	if dead {
		return
	}
	if string(r.Data) != p.texts[r.ID] {
		p.t.Errorf("%s was told with other data", r.ID)
	}
	if told, again := p.told[r.ID]; again && told.life == p.number {
		p.t.Errorf("%s was told twice in process %d", r.ID, p.number)
	}
	p.told[r.ID] = told{p.number, time.Now()}
	switch {
	case r.Err == nil:
		p.count.Acked++
		if !p.said[false][r.ID] {
			p.t.Errorf("%s was not acknowledged", r.ID)
		}
	case errors.Is(r.Err, outbox.ErrRefused):
		p.count.Refused++
		if !p.said[true][r.ID] {
			p.t.Errorf("%s was not refused", r.ID)
		}
	case errors.Is(r.Err, outbox.ErrSetAside):
		p.count.SetAside++
	default:
		p.t.Errorf("%s: %v", r.ID, r.Err)
	}
}

// put stores messages, one after the other.
func (p *life) put(g int, random *rand.Rand) {
	for n := range 1 + random.IntN(8) {
		time.Sleep(time.Duration(random.Int64N(int64(time.Second))))
		id := fmt.Sprintf("%d-%d-%d", p.number, g, n)
		size := random.IntN(100)
		if random.IntN(20) == 0 {
			size = random.IntN(40_000)
		}
		text := id + "|" + strings.Repeat("x", size)
		p.mu.Lock()
		p.texts[id] = text
		p.mu.Unlock()
		for p.putOne(random, id, text) {
			time.Sleep(time.Second)
		}
	}
}

// putOne stores a message, and reports whether to try again.
func (p *life) putOne(random *rand.Rand, id, text string) (again bool) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	if random.IntN(10) == 0 {
		cancel()
		ctx, cancel = context.WithTimeout(context.Background(), 10*time.Millisecond)
	}
	defer cancel()
	err := p.box.Put(ctx, id, resock.MessageText, []byte(text))
	switch {
	case err == nil && !p.store.isDead():
		p.mu.Lock()
		defer p.mu.Unlock()
		p.accepted = append(p.accepted, id)
		return false
	case err == nil, errors.Is(err, errDisk), errors.Is(err, errDead), errors.Is(err, outbox.ErrClosed), errors.Is(err, context.DeadlineExceeded):
		if errors.Is(err, outbox.ErrClosed) && p.disk.has(id) {
			p.t.Errorf("%s is stored: %v", id, err)
		}
		return false
	case errors.Is(err, outbox.ErrFull):
		return true
	}
	p.t.Errorf("Put: %v", err)
	return false
}

func (d *disk) has(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.records {
		if r.ID == id {
			return true
		}
	}
	return false
}

// bind binds the box to a client that runs.
func (p *life) bind() {
	u := &user{number: len(p.clients)}
	header := http.Header{"Life": {fmt.Sprint(p.number)}, "Client": {fmt.Sprint(u.number)}}
	client, err := resock.New(p.peer.server.URL, resock.WithFilter(p.box.Filter), resock.WithBackoff(time.Second, time.Second), resock.WithCloseTimeout(time.Second),
		resock.WithDialOptions(&websocket.DialOptions{HTTPClient: p.peer.server.Client(), HTTPHeader: header}))
	if err != nil {
		p.t.Error(err)
		return
	}
	u.client = client
	p.mu.Lock()
	p.clients = append(p.clients, u)
	p.mu.Unlock()
	events := client.Subscribe(context.Background(), resock.WithBuffer(2))
	pause := time.Duration(p.random.IntN(3)) * 300 * time.Millisecond
	p.tasks.Go(func() {
		for range events {
			time.Sleep(pause)
		}
	})
	ends := client.Subscribe(context.Background(), resock.WithoutMessages())
	p.tasks.Go(func() { u.note(p, ends) })
	early := p.random.IntN(2) == 0
	if !early {
		p.tasks.Go(func() { client.Run(context.Background()) })
		time.Sleep(time.Duration(p.random.IntN(100)) * time.Millisecond)
	}
	if err := p.box.Bind(client); err != nil && !p.store.isDead() {
		p.t.Errorf("Bind: %v", err)
	}
	if early {
		p.tasks.Go(func() { client.Run(context.Background()) })
	}
}

// note notes how the sessions of a client end.
func (u *user) note(p *life, events <-chan resock.Event) {
	var begun time.Time
	for event := range events {
		p.mu.Lock()
		switch e := event.(type) {
		case resock.OpenEvent:
			begun = e.Time
		case resock.FailEvent:
			if e.Session > 0 {
				u.ends = append(u.ends, end{e.Session, begun, e.Time, e.Rule})
			}
		case resock.CloseEvent:
			u.ends = append(u.ends, end{e.Session, begun, e.Time, e.Rule})
		}
		p.mu.Unlock()
	}
}

// user returns the present client. The application is about to end its session.
func (p *life) user() *user {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.clients[len(p.clients)-1]
	u.acts = append(u.acts, time.Now())
	return u
}

// act does what applications do; one time with another session if times is negative.
func (p *life) act(times int) {
	if times < 0 {
		p.user().client.Reconnect()
		return
	}
	for range times {
		p.wait(time.Duration(p.random.Int64N(int64(3 * time.Second))))
		if p.store.isDead() {
			return
		}
		switch p.random.IntN(8) {
		case 0:
			p.user().client.Suspend()
			p.wait(time.Duration(p.random.Int64N(int64(3 * time.Second))))
			p.user().client.Resume()
		case 1:
			p.user().client.Reconnect()
		case 2:
			client := p.user().client
			_ = client.Close(resock.StatusNormalClosure, "")
			<-client.Done()
			synctest.Wait()
			p.bind()
		case 3:
			p.peer.server.Stop()
			p.wait(time.Duration(p.random.Int64N(int64(3 * time.Second))))
			p.peer.server.Restart()
		case 4, 5:
			d := time.Duration(p.random.Int64N(int64(20 * time.Second)))
			p.tasks.Go(func() { p.flush(d) })
		default:
			if s := p.box.Stats(); s.UnderWay > p.window {
				p.t.Errorf("got %+v, of a window of %d", s, p.window)
			}
		}
	}
}

// flush flushes the box. When it could, all that was accepted before is told.
func (p *life) flush(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	p.mu.Lock()
	before := slices.Clone(p.accepted)
	p.mu.Unlock()
	err := p.box.Flush(ctx)
	if err != nil || p.store.isDead() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range before {
		if p.told[id].at.IsZero() {
			p.t.Errorf("%s was not told by the end of Flush", id)
		}
	}
}

// end ends a process: by closing the box before or after the client, if it lives.
func (p *life) end() {
	p.mu.Lock()
	p.closing = time.Now()
	clients := slices.Clone(p.clients)
	p.mu.Unlock()
	first := p.random.IntN(2) == 0
	if first {
		p.close()
	}
	for _, u := range clients {
		_ = u.client.Close(resock.StatusNormalClosure, "")
		<-u.client.Done()
	}
	if !first {
		p.close()
	}
}

func (p *life) close() {
	if err := p.box.Close(); err != nil {
		p.t.Error(err)
	}
	if p.store.isDead() {
		return
	}
	got, want := p.box.Stats(), p.count
	want.Messages, want.Bytes = p.store.Len()
	got.Resent, got.StoreErr, got.UnderWay = 0, nil, 0
	if got != want {
		p.t.Errorf("process %d: got %+v, want %+v", p.number, got, want)
	}
}
