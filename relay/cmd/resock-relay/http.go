package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/resock/resock"
	"github.com/resock/resock/debug"
	"github.com/resock/resock/relay"
	"github.com/resock/resock/relay/relayprom"
	"github.com/resock/resock/resockprom"
)

// shutdownTimeout is for the requests that are still being answered at the end.
const shutdownTimeout = 5 * time.Second

// admin tells over HTTP what the relay does.
type admin struct {
	name     string // of the relay and its client
	listener net.Listener
	clients  *resockprom.Collector
	page     debug.Handler
}

// listen listens without serving yet, so that an address that cannot be is an error at once.
func listen(addr, name string) (*admin, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("-http: %w", err)
	}
	return &admin{name: name, listener: listener, clients: resockprom.New(resockprom.Options{})}, nil
}

// run runs a relay, and serves meanwhile. If serving fails the relay ends, too.
func (a *admin) run(ctx context.Context, config relay.Config) error {
	config.Client = func(client *resock.Client) (remove func()) { return a.show(client, config.Log) }
	r, err := relay.New(config)
	if err != nil {
		return err
	}
	handler, err := a.handler(r)
	if err != nil {
		return err
	}
	config.Log.Info("serving HTTP", "addr", a.listener.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	ctx, end := context.WithCancelCause(ctx)
	served := make(chan struct{})
	go func() {
		defer close(served)
		end(fmt.Errorf("-http: %w", server.Serve(a.listener)))
	}()
	err = r.Run(ctx)
	shutdown(server)
	<-served
	return err
}

// show shows the client of a term until it has ended.
func (a *admin) show(client *resock.Client, log *slog.Logger) (remove func()) {
	var shown []func()
	for _, add := range []func(string, *resock.Client) (func(), error){a.clients.Add, a.page.Add} {
		remove, err := add(a.name, client)
		if err != nil {
			log.Error("the client is not shown", "err", err)
			continue
		}
		shown = append(shown, remove)
	}
	return func() {
		for _, remove := range shown {
			remove()
		}
	}
}

func (a *admin) handler(r *relay.Relay) (http.Handler, error) {
	relays, registry := relayprom.New(relayprom.Options{}), prometheus.NewRegistry()
	if _, err := relays.Add(a.name, r); err != nil {
		return nil, err
	}
	registry.MustRegister(relays, a.clients)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("GET /debug/resock", &a.page)
	mux.HandleFunc("GET /livez", answer(func() error { return nil }))
	mux.HandleFunc("GET /readyz", answer(r.Check))
	return mux, nil
}

// answer answers a probe.
func answer(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

// shutdown answers what was asked, and ends.
func shutdown(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close()
	}
}
