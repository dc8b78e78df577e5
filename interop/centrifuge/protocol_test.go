package centrifuge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resume"
)

// reply is a line that the server sends: the answer to a command, a push or, if it is empty, a ping.
type reply struct {
	ID           uint32        `json:"id"`
	Error        *failure      `json:"error"`
	Subscription *subscription `json:"subscribe"`
	Push         *push         `json:"push"`
}

type failure struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// subscription is the answer to a subscribe command. If it is recovered, Offset is what the
// command asked for, and Publications follow that. If not, Offset is the last one of the channel.
type subscription struct {
	Epoch        string        `json:"epoch"`
	Offset       uint64        `json:"offset"`
	Recovered    bool          `json:"recovered"`
	Publications []publication `json:"publications"`
}

type push struct {
	Channel     string       `json:"channel"`
	Publication *publication `json:"pub"`
}

type publication struct {
	Data   json.RawMessage `json:"data"`
	Offset uint64          `json:"offset"`
}

// command is a line that the client sends.
type command struct {
	ID        int        `json:"id"`
	Connect   *struct{}  `json:"connect,omitempty"`
	Subscribe *subscribe `json:"subscribe,omitempty"`
}

type subscribe struct {
	Channel string `json:"channel"`
	Recover bool   `json:"recover,omitempty"`
	Epoch   string `json:"epoch,omitempty"`
	Offset  uint64 `json:"offset,omitempty"`
}

// protocol is the client's side of the protocol. Its functions are the hooks of a client and of a
// feed.
type protocol struct {
	channels []string // the command that subscribes to channels[i] has the id i + firstID
	feed     *resume.Feed
	client   *resock.Client
	epochs   map[string]string // of the channels: a push does not name it
	pings    chan uint64       // the sessions of pings that were answered
	faults   []error           // what read did not understand; of the loop
}

// A channel has the same id in each session, so an answer that is read late is understood.
const (
	connectID = 1
	firstID   = 2
)

// newProtocol returns the client and the feed that follow the channels. The client is closed when
// the test ends.
func newProtocol(t *testing.T, url string, channels []string, opts ...resock.Option) *protocol {
	t.Helper()
	p := &protocol{channels: channels, epochs: make(map[string]string), pings: make(chan uint64, 1<<16)}
	feed, err := resume.New(t.Context(), resume.Config{Read: p.read})
	if err != nil {
		t.Fatal(err)
	}
	for _, channel := range channels {
		feed.Add(channel)
	}
	p.feed = feed
	p.client = rig.Bare(t, url, append(opts, resock.WithOnOpen(p.open), resock.WithFilter(p.pong))...)
	return p
}

// open connects and subscribes, in one message, and waits for the answers, which read needs, too.
func (p *protocol) open(ctx context.Context, s *resock.Session) error {
	commands := []command{{ID: connectID, Connect: &struct{}{}}}
	for _, c := range p.feed.Cursors() {
		commands = append(commands, command{
			ID:        firstID + slices.Index(p.channels, c.Stream),
			Subscribe: &subscribe{Channel: c.Stream, Recover: c.Known, Epoch: c.Epoch, Offset: c.Seq},
		})
	}
	data, err := lines(commands)
	if err != nil {
		return err
	}
	if err := s.Send(ctx, resock.MessageText, data); err != nil {
		return err
	}
	for answers := 0; answers < len(commands); {
		typ, data, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		n, err := count(data)
		if err != nil {
			return err
		}
		answers += n
		s.Unread(typ, data)
	}
	return nil
}

// lines encodes commands, each in a line of its own.
func lines(commands []command) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	for _, c := range commands {
		if err := encoder.Encode(c); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// count counts the answers to commands in a message. One that is an error is an error.
func count(data []byte) (answers int, err error) {
	err = each(data, func(r reply) error {
		if r.ID > 0 {
			answers++
		}
		if r.Error != nil {
			return fmt.Errorf("the server answers command %d with %q (%d)", r.ID, r.Error.Message, r.Error.Code)
		}
		return nil
	})
	return answers, err
}

// each calls do for each line of a message.
func each(data []byte, do func(reply) error) error {
	for line := range bytes.Lines(data) {
		var r reply
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("the server sends %.100q: %w", line, err)
		}
		if err := do(r); err != nil {
			return err
		}
	}
	return nil
}

// read finds the publications in a message.
func (p *protocol) read(m resock.MessageEvent, found *resume.Found) {
	err := each(m.Data, func(r reply) error {
		switch {
		case r.Subscription != nil:
			return p.subscribed(r, found)
		case r.Push != nil && r.Push.Publication != nil:
			found.Message(p.position(r.Push.Channel, r.Push.Publication.Offset), r.Push.Publication.Data)
		case r.Push != nil:
			return fmt.Errorf("the server sends an unexpected push: %s", m.Data)
		}
		return nil
	})
	if err != nil {
		p.faults = append(p.faults, err)
	}
}

// subscribed reads the answer to a subscription: what was missed, and where the channel goes on.
// If the server cannot recover, that is behind the cursor, and At makes a gap of it.
func (p *protocol) subscribed(r reply, found *resume.Found) error {
	i := int(r.ID) - firstID
	if i < 0 || i >= len(p.channels) {
		return errors.New("the server answers a subscription that there is not")
	}
	channel := p.channels[i]
	p.epochs[channel] = r.Subscription.Epoch
	for _, m := range r.Subscription.Publications {
		found.Message(p.position(channel, m.Offset), m.Data)
	}
	found.At(p.position(channel, r.Subscription.Offset))
	return nil
}

func (p *protocol) position(channel string, offset uint64) resume.Position {
	return resume.Position{Stream: channel, Epoch: p.epochs[channel], Seq: offset}
}

// pong answers pings, and keeps a message that is nothing else from the feed. A pong that comes
// in another session than its ping is an error to the server, hence WithSession.
func (p *protocol) pong(_ context.Context, m resock.MessageEvent) bool {
	rest := false
	for line := range bytes.Lines(m.Data) {
		if string(bytes.TrimSpace(line)) != "{}" {
			rest = true
			continue
		}
		if p.client.Enqueue(resock.MessageText, []byte("{}"), resock.WithSession(m.Session)) == nil {
			p.pings <- m.Session
		}
	}
	return rest
}
