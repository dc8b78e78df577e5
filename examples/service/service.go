package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/resock/resock"
	"github.com/resock/resock/debug"
	"github.com/resock/resock/health"
	"github.com/resock/resock/resockprom"
)

// service takes reports by HTTP and passes them on over one connection.
type service struct {
	client *resock.Client
	public http.Server
	admin  http.Server // for those who run the service; not to be reached from elsewhere
	page   debug.Handler
	ready  health.Readiness
}

func newService(url string) (*service, error) {
	client, err := resock.New(url, resock.WithBackoff(200*time.Millisecond, time.Second))
	if err != nil {
		return nil, err
	}
	s := &service{client: client}
	if _, err := s.page.Add("reports", client); err != nil {
		return nil, err
	}
	// A short loss is no reason to send callers elsewhere: reports are queued meanwhile.
	if _, err := s.ready.Add("reports", client, health.WithGrace(time.Second)); err != nil {
		return nil, err
	}
	metrics, registry := resockprom.New(resockprom.Options{}), prometheus.NewRegistry()
	registry.MustRegister(metrics)
	if _, err := metrics.Add("reports", client); err != nil {
		return nil, err
	}
	public := http.NewServeMux()
	public.HandleFunc("POST /reports", s.report)
	s.public = http.Server{Handler: public, ReadHeaderTimeout: 5 * time.Second}
	admin := http.NewServeMux()
	admin.Handle("GET /readyz", &s.ready)
	admin.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	admin.Handle("GET /debug/resock", &s.page)
	s.admin = http.Server{Handler: admin, ReadHeaderTimeout: 5 * time.Second}
	return s, nil
}

// run serves until ctx ends, passes on what was accepted, and returns. It returns early, with
// an error, if the client or an HTTP server ends by itself.
func (s *service) run(ctx context.Context, public, admin net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	until := func(serve func() error) {
		group.Go(func() error { return unlessOver(ctx, serve()) })
	}
	// Run gets a context without an end: Shutdown needs the connection when ctx ends.
	until(func() error { return s.client.Run(context.WithoutCancel(ctx)) })
	until(func() error { return s.public.Serve(public) })
	until(func() error { return s.admin.Serve(admin) })
	group.Go(func() error {
		<-ctx.Done()
		return s.shutdown()
	})
	return group.Wait()
}

// unlessOver returns why something ended that should go on until ctx ends.
func unlessOver(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil:
		return errors.New("the client was closed")
	}
	return err
}

// shutdown accepts nothing more, sends everything that was accepted, and ends. Probes and
// metrics are served to the end. It takes less time than a platform grants after SIGTERM.
func (s *service) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := s.public.Shutdown(ctx)
	say("service", "nothing more is accepted, %d reports are to be sent", s.client.Stats().Queued)
	if read := s.client.Flush(ctx); read != nil { // else Shutdown is content with what the network took
		err = errors.Join(err, read)
	}
	if sent := s.client.Shutdown(ctx); sent != nil {
		err = errors.Join(err, sent)
		_ = s.client.Close(resock.StatusGoingAway, "out of time") // else it goes on until all is sent
	}
	return errors.Join(err, s.admin.Shutdown(ctx))
}

// report accepts a report. Accepted means queued: it survives an outage, not a crash.
func (s *service) report(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch err := s.client.Enqueue(resock.MessageText, text, resock.WithResult(sent)); {
	case errors.Is(err, resock.ErrQueueFull), errors.Is(err, resock.ErrClosed):
		w.Header().Set("Retry-After", "5")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

// sent hears what became of an accepted report.
func sent(err error) {
	if err != nil {
		say("service", "a report was lost: %v", err)
	}
}
