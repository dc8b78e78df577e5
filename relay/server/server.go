// Package server runs a server of NATS with JetStream inside the process.
package server

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Config configures [Start].
type Config struct {
	// Dir is the folder of the streams. Required.
	Dir string

	// Addr is where the server listens, as host:port; port 0 is any that is free. Defaults
	// to nowhere: then only [Server.Connect] reaches it.
	Addr string

	// NoSync lets the server acknowledge what is not on disk yet: that is faster, and the
	// end of the machine loses up to two minutes. By default each write is synchronous.
	NoSync bool
}

// Server is a server that runs.
type Server struct{ server *natsserver.Server }

// maxPayload has room for the largest message that a client accepts by default, and for
// its headers.
const maxPayload = 2 << 20

// maxBatch is how many messages a batch may have. Each costs a file and a sync of its own, so
// that larger ones are cheaper.
const maxBatch = 4096

// Start starts a server, and returns when it is ready.
func Start(config Config) (*Server, error) {
	options, err := config.options()
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	s, err := natsserver.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, errors.New("server: not ready within 30 s")
	}
	return &Server{s}, nil
}

func (c Config) options() (*natsserver.Options, error) {
	if c.Dir == "" {
		return nil, errors.New("Config.Dir is empty")
	}
	options := &natsserver.Options{
		JetStream: true, JetStreamLimits: natsserver.JSLimitOpts{MaxBatchSize: maxBatch}, StoreDir: c.Dir, SyncAlways: !c.NoSync, MaxPayload: maxPayload,
		NoSigs: true, NoLog: true, DontListen: c.Addr == "",
	}
	if c.Addr == "" {
		return options, nil
	}
	host, port, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return nil, fmt.Errorf("Config.Addr: %w", err)
	}
	options.Host = host
	if options.Port, err = strconv.Atoi(port); err != nil {
		return nil, fmt.Errorf("Config.Addr: the port is %q, want a number", port)
	}
	if options.Port == 0 {
		options.Port = natsserver.RANDOM_PORT
	}
	return options, nil
}

// Connect connects to the server, without the network.
func (s *Server) Connect(options ...nats.Option) (*nats.Conn, error) {
	return nats.Connect("", append(options, nats.InProcessServer(s.server))...)
}

// URL returns where the server listens, if it does.
func (s *Server) URL() string { return s.server.ClientURL() }

// Close stops the server, and returns when nothing of it runs any more.
func (s *Server) Close() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}
