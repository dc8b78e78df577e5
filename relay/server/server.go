// Package server runs a server of NATS with JetStream inside the process.
package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/resock/resock/internal/filelock"
)

// Config configures [Start].
type Config struct {
	// Dir is the folder of the streams, which is made if need be. One server may use it at a
	// time. Required.
	Dir string

	// Addr is where the server listens, as host:port; port 0 is any that is free. Anyone who
	// reaches it may read and write: there are no users and no TLS. Defaults to nowhere: then
	// only [Server.Connect] reaches the server.
	Addr string

	// NoSync lets the server acknowledge what is not on disk yet: that is faster, and the
	// end of the machine loses up to two minutes. By default each write is synchronous.
	NoSync bool
}

// Server is a server that runs. Its methods may be called concurrently.
type Server struct {
	server *natsserver.Server
	lock   *filelock.Lock // of Config.Dir
}

// maxPayload has room for the largest message that a client accepts by default, and for
// its headers.
const maxPayload = 2 << 20

// maxBatch is how many messages a batch may have. A batch costs a file and a sync, however
// large it is, so large ones are cheaper. By default a server takes 1,000.
const maxBatch = 4096

// Start starts a server, and returns when it is ready. An error says what is wrong with
// config, that Dir or Addr is in use, or that the streams in Dir cannot be read.
func Start(config Config) (*Server, error) {
	options, err := config.options()
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	lock, err := own(config.Dir)
	if err != nil {
		return nil, fmt.Errorf("server: Config.Dir: %w", err)
	}
	s, err := start(options)
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("server: %w", err)
	}
	return &Server{s, lock}, nil
}

// own locks the folder: two servers in one would destroy its streams.
func own(dir string) (*filelock.Lock, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	return filelock.Open(filepath.Join(dir, "lock"))
}

func start(options *natsserver.Options) (*natsserver.Server, error) {
	s, err := natsserver.NewServer(options)
	if err != nil {
		return nil, err
	}
	failed := make(failure, 1)
	s.SetLogger(failed, false, false)
	s.Start()
	if len(failed) == 0 && s.ReadyForConnections(30*time.Second) {
		return s, nil
	}
	s.Shutdown()
	s.WaitForShutdown()
	select {
	case err := <-failed:
		return nil, err
	default:
		return nil, errors.New("not ready within 30 s")
	}
}

// failure takes the first fatal error from the log of a server, which is told nowhere else.
type failure chan error

func (f failure) Fatalf(format string, args ...any) {
	select {
	case f <- fmt.Errorf(format, args...):
	default:
	}
}

func (failure) Errorf(string, ...any)  {}
func (failure) Warnf(string, ...any)   {}
func (failure) Noticef(string, ...any) {}
func (failure) Debugf(string, ...any)  {}
func (failure) Tracef(string, ...any)  {}

func (c Config) options() (*natsserver.Options, error) {
	if c.Dir == "" {
		return nil, errors.New("Config.Dir is empty")
	}
	options := &natsserver.Options{
		JetStream: true, JetStreamLimits: natsserver.JSLimitOpts{MaxBatchSize: maxBatch},
		StoreDir: c.Dir, SyncAlways: !c.NoSync, MaxPayload: maxPayload,
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

// Connect connects to the server, without the network. The caller closes the connection,
// before the server.
func (s *Server) Connect(options ...nats.Option) (*nats.Conn, error) {
	return nats.Connect("", append(options, nats.InProcessServer(s.server))...)
}

// URL returns where the server listens, as nats://host:port. Without Config.Addr it means
// nothing.
func (s *Server) URL() string { return s.server.ClientURL() }

// Close stops the server, and returns when nothing of it runs any more. Calls after the
// first do nothing.
func (s *Server) Close() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
	_ = s.lock.Close()
}
