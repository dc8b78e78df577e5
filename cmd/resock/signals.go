package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// watch lets signals close the client, and a second one end the program at once. It
// watches for the end of a reader of standard output, too. stop ends what it began.
func (p *program) watch() (stop func()) {
	if len(brokenPipeSignals) > 0 { // a write fails in place of that, so that the terminal can be restored
		signal.Notify(make(chan os.Signal, 1), brokenPipeSignals...)
	}
	signals, done := make(chan os.Signal, 2), make(chan struct{})
	p.done = done
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // by nohup, say
			signal.Notify(signals, s)
		}
	}
	go func() {
		for {
			select {
			case s := <-signals:
				p.signaled(s.(syscall.Signal))
			case <-done:
				return
			}
		}
	}()
	watchReader(os.Stdout, func() {
		if !p.ended() { // else there may be nothing more to write
			p.dieOfPipe()
		}
	})
	return func() { close(done) }
}

// interrupted is Ctrl-C at a terminal in raw mode.
func (p *program) interrupted() { p.signaled(syscall.SIGINT) }

// signaled closes the client, or ends the program if that was asked for before.
func (p *program) signaled(s syscall.Signal) {
	code := exitSignal + int(s)
	if p.signals.Add(1) > 1 {
		p.kill(code)
	}
	p.end(code, nil)
	go func() {
		<-p.client.Done()
		select {
		case <-p.done:
		case <-time.After(time.Second): // whoever reads the output does not
			p.kill(code)
		}
	}()
}

// kill ends the program at once, whatever it waits for.
func (p *program) kill(code int) {
	p.screen.abandon()
	os.Exit(code)
}

// dieOfPipe ends the program as it would end if it knew nothing of closed pipes.
func (p *program) dieOfPipe() {
	_ = p.recorder.flush()
	p.screen.abandon()
	dieOfPipe()
}

// brokenPipe reports whether whoever read the output has gone.
func brokenPipe(err error) bool { return errors.Is(err, errBrokenPipe) }

// plain is an error of a file without its name, which is not always one, and operation.
func plain(err error) error {
	if path := (*os.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}
