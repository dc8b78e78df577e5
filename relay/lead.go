package relay

import (
	"context"
	"time"
)

// standBy returns a reader that reads along, if the configuration wants one.
func (r *Relay) standBy(ctx context.Context) (*reader, error) {
	if r.config.Standby == 0 {
		return nil, nil
	}
	f, err := r.newReader(ctx, nil)
	if err != nil {
		return nil, err
	}
	if err := f.start(r.config.Client); err != nil {
		return nil, err
	}
	return f, nil
}

// lead reads the feed into the log until the term is over or ctx ends, and returns why.
func (r *Relay) lead(ctx context.Context, t *term, standby *reader) error {
	taking, cancel := context.WithCancelCause(t.ctx)
	defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
	w, at, err := r.log.take(taking, t)
	if err != nil {
		standby.stop()
		return err
	}
	r.begin(t, w)
	defer r.finish(w)
	to := &appender{relay: r, writer: w, at: at, quiet: w.began == 1}
	if err := to.begin(t.ctx); err != nil {
		standby.stop()
		return err
	}
	f, err := r.takeOver(t.ctx, standby, to)
	if err != nil {
		return err
	}
	defer f.stop()
	r.enter(part{stage: leading, client: f.client})
	stop, err := r.startOut(t, f)
	if err != nil {
		return err
	}
	defer stop()
	select {
	case <-f.done:
		return f.err
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// takeOver returns a reader that writes the log: the one that stood by, or a new one that
// goes on where the log ends.
func (r *Relay) takeOver(ctx context.Context, standby *reader, to *appender) (*reader, error) {
	if standby != nil {
		ok, err := standby.lead(to)
		if ok && err == nil {
			return standby, nil
		}
		standby.stop()
		if err != nil {
			return nil, err
		}
	}
	f, err := r.newReader(ctx, to.at)
	if err != nil {
		return nil, err
	}
	f.to = to
	return f, f.start(r.config.Client)
}

func (r *Relay) begin(t *term, w *writer) {
	r.config.Log.Info("leading", "term", t.epoch)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writer = w
	r.part = part{stage: leading}
	r.stats.Leading, r.stats.Term = true, t.epoch
	r.stats.Terms++
}

// finish ends the writer, when nothing appends any more. In a term that ends in order it may
// write what it has.
func (r *Relay) finish(w *writer) {
	ctx, cancel := context.WithTimeout(w.ctx, time.Second)
	defer cancel()
	_ = w.waiting.empty(ctx)
	w.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.add(w.counted())
	r.writer = nil
	r.part = part{stage: changing}
	r.stats.Leading, r.stats.Unacknowledged, r.stats.Bytes = false, 0, 0
}
