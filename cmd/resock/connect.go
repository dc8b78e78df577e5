package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
)

// program is "resock URL" as it runs. Its loop is the only one that writes messages, so
// that everything appears in the order in which it happened.
type program struct {
	*settings
	client   *resock.Client
	screen   *screen
	out      *output
	recorder *recorder // or nil
	sender   *sender   // or nil
	status   *status

	session   uint64       // that was opened last
	received  uint64       // messages, whether they were printed or not
	controls  chan control // pings and pongs
	early     []control    // that came before what is told first
	roundTrip atomic.Int64 // that the last pong told
	quietness *time.Timer  // of -silence; nil without it
	heard     time.Time    // when the last message came, or the start
	messages  int          // that were printed

	signals atomic.Int32    // that came
	done    <-chan struct{} // closed when the program has written everything

	mu     sync.Mutex
	ending *exitError // why the program ends, once it does
}

// connect runs the program until it ends, and returns an *exitError or nil.
func connect(ctx context.Context, s *settings, url string, opts []resock.Option) error {
	p := &program{settings: s, controls: make(chan control, 256), heard: time.Now()}
	if s.preamble != nil || s.requested {
		opts = append(opts, resock.WithOnOpen(p.greet))
	}
	if s.control || s.roundTrips || s.record != "" {
		opts = append(opts, resock.WithDialOptions(&websocket.DialOptions{OnPingReceived: p.pinged, OnPongReceived: p.ponged}))
	}
	var err error
	if p.client, err = resock.New(url, opts...); err != nil {
		return usage(explainOption(err))
	}
	start := time.Now()
	if s.record != "" {
		if p.recorder, err = newRecorder(s.record, start); err != nil {
			return &exitError{exitOutputFull, err}
		}
	}
	p.screen = newScreen(s.quiet)
	p.out = newOutput(s, p.screen, start)
	p.status = &status{client: p.client, screen: p.screen}
	return p.run(ctx)
}

// run connects, and serves until the end.
func (p *program) run(ctx context.Context) error {
	events := p.client.Subscribe(ctx, resock.WithBuffer(1024), resock.WithLabel("output"))
	if !p.requested {
		p.screen.edit(p.interrupted)
	}
	stop := p.watch()
	go p.client.Run(ctx)
	if !p.requested {
		p.sender = &sender{program: p}
		p.sender.start()
	}
	if p.screen.live {
		go p.status.run()
	}
	if p.silence > 0 {
		p.quietness = time.NewTimer(p.silence)
	}
	for p.step(events) {
	}
	p.finish()
	stop()
	return p.result()
}

// step does the next thing, and what is left to do before it waits for that. It reports
// false after the last event.
func (p *program) step(events <-chan resock.Event) bool {
	select {
	case e, ok := <-events:
		return ok && p.happened(e)
	case c := <-p.controls:
		p.early = append(p.early, c)
		p.tellControls(true)
		return true
	default:
	}
	p.flush()
	var silent <-chan time.Time
	if p.quietness != nil {
		silent = p.quietness.C
	}
	select {
	case e, ok := <-events:
		return ok && p.happened(e)
	case c := <-p.controls:
		p.early = append(p.early, c)
		p.tellControls(true)
	case <-silent:
		p.checkSilence()
	}
	return true
}

// flush writes out what waits, since nothing more has come.
func (p *program) flush() {
	if err := p.recorder.flush(); err != nil {
		p.end(exitOutputFull, err)
	}
	p.outcome(p.out.flush())
}

// outcome ends the program if the output failed.
func (p *program) outcome(err error) {
	if err == nil {
		return
	}
	if brokenPipe(err) {
		p.dieOfPipe()
	}
	p.end(exitOutputFull, fmt.Errorf("standard output: %w", plain(err)))
}

// checkSilence ends the program if no message came for too long.
func (p *program) checkSilence() {
	left := p.silence - time.Since(p.heard)
	if left > 0 {
		p.quietness.Reset(left)
		return
	}
	what := "message"
	if p.requested {
		what = "answer"
	}
	p.end(exitTimeout, fmt.Errorf("no %s for %v", what, p.silence))
}

// end closes the client, because of which the loop ends. The first reason counts.
func (p *program) end(code int, err error) {
	p.mu.Lock()
	if p.ending == nil {
		p.ending = &exitError{code, err}
	}
	p.mu.Unlock()
	_ = p.client.Close(resock.StatusCode(p.closeCode), p.closeReason) // they were checked
}

// ended reports whether the program ends, and so prints no more messages.
func (p *program) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ending != nil
}

// finish writes out what is left, and leaves the terminal as it was.
func (p *program) finish() {
	if p.sender != nil {
		p.sender.join()
	}
	p.outcome(p.out.flush())
	p.screen.close()
	if err := p.recorder.close(); err != nil {
		p.end(exitOutputFull, err)
	}
	if err := os.Stdout.Close(); err != nil { // some file systems tell only now
		p.outcome(err)
	}
}

// result is what the program ends with.
func (p *program) result() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.client.Err()
	switch {
	case p.ending != nil && p.ending.code != exitDone:
		return p.ending
	case err != nil:
		return &exitError{exitFailed, fmt.Errorf("%s", explain(err))}
	case p.sender != nil && p.sender.failed.Load() > 0:
		return &exitError{exitFailed, nil} // each was told
	}
	return nil
}

// greet sends the preamble, and the request, on a new connection.
func (p *program) greet(ctx context.Context, s *resock.Session) error {
	lines := p.preamble
	if p.requested {
		lines = append(lines[:len(lines):len(lines)], p.request)
	}
	for i, line := range lines {
		typ := resock.MessageText
		if p.binary && i >= len(p.preamble) {
			typ = resock.MessageBinary
		}
		at := time.Now()
		if err := s.Send(ctx, typ, []byte(line)); err != nil {
			return err
		}
		p.recorder.sent(at, typ, []byte(line))
	}
	return nil
}
