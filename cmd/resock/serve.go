package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"github.com/urfave/cli/v3"
)

const goingAway = "the server is going away"

// serveSettings are what the flags of "resock serve" say.
type serveSettings struct {
	listen string

	tls      bool
	certFile string
	keyFile  string
	certOut  string

	subprotocols []string
	compression  string
	header       string
	token        string

	echo     bool
	ping     time.Duration
	pushes   pushes
	pace     string
	commands string
	faultSet []string

	replay string
	speed  float64
	loop   bool
	whole  bool

	quiet bool
}

// serveCommand is "resock serve".
func serveCommand() *cli.Command {
	set := new(serveSettings)
	return &cli.Command{
		Name:                      "serve",
		Usage:                     "run an echo and push server with faults on demand",
		ArgsUsage:                 "[ADDRESS]",
		Description:               faultHelp(),
		CustomHelpTemplate:        serveHelp,
		DisableSliceFlagSeparator: true,
		HideHelpCommand:           true,
		OnUsageError: func(_ context.Context, _ *cli.Command, err error, _ bool) error {
			return usage(fmt.Errorf("%w; see resock serve -help", err))
		},
		Flags:  set.flags(),
		Action: set.serve,
	}
}

const (
	aboutServer = "Server"
	aboutPushes = "Messages"
	aboutFaults = "Faults"
	aboutReplay = "Replay"
)

func (s *serveSettings) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "listen", Aliases: []string{"l"}, Category: aboutServer, Destination: &s.listen, Value: "127.0.0.1:8080",
			Usage: "listen on `ADDRESS`; port 0 is any that is free"},
		&cli.BoolFlag{Name: "tls", Category: aboutServer, Destination: &s.tls,
			Usage: "serve wss, by a certificate made for this run unless -cert is given"},
		&cli.StringFlag{Name: "cert", Category: aboutServer, Destination: &s.certFile, TakesFile: true,
			Usage: "serve wss by the certificate in `FILE` (PEM)"},
		&cli.StringFlag{Name: "key", Category: aboutServer, Destination: &s.keyFile, TakesFile: true,
			Usage: "the private key of -cert, in `FILE` (default: the file of -cert)"},
		&cli.StringFlag{Name: "cert-out", Category: aboutServer, Destination: &s.certOut, TakesFile: true,
			Usage: "write the certificate of -tls to `FILE`, for -cacert of clients"},
		&cli.StringSliceFlag{Name: "subprotocol", Aliases: []string{"s", "protocol"}, Category: aboutServer, Destination: &s.subprotocols,
			Usage: "accept the subprotocol `NAME`; repeatable, the preferred one first"},
		&cli.StringFlag{Name: "compression", Category: aboutServer, Destination: &s.compression, Value: "off",
			Usage: "accept permessage-deflate: `MODE` is context (messages may refer to earlier ones), message, or off"},
		&cli.StringFlag{Name: "require-header", Category: aboutServer, Destination: &s.header,
			Usage: "answer 401 to a request without the header `\"Name: value\"`"},
		&cli.StringFlag{Name: "require-token", Category: aboutServer, Destination: &s.token,
			Usage: "answer 401 to a request without `TOKEN`, as \"Authorization: Bearer TOKEN\" or ?token=TOKEN"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Category: aboutServer, Destination: &s.quiet,
			Usage: "tell nothing but errors"},

		&cli.BoolFlag{Name: "echo", Category: aboutPushes, Destination: &s.echo, Value: true, HideDefault: true,
			Usage: "send back what comes (default: true, and false with -push or -replay)"},
		&cli.StringFlag{Name: "push", Category: aboutPushes, Destination: &s.pace,
			Usage: "send a message every `INTERVAL`, such as 1s, or so many per second, such as 100/s"},
		&cli.StringFlag{Name: "push-text", Category: aboutPushes, Destination: &s.pushes.text, Value: "push {n}",
			Usage: "what they say: in `TEXT`, {n} is their number and {time} the time"},
		&sizeFlag{Name: "push-size", Category: aboutPushes, Destination: &s.pushes.size, Value: -1, HideDefault: true,
			Usage: "make them exactly `BYTES` long (k, M and G are known)"},
		&cli.BoolFlag{Name: "push-binary", Category: aboutPushes, Destination: &s.pushes.binary,
			Usage: "send them as binary messages"},
		&cli.Int64Flag{Name: "push-count", Category: aboutPushes, Destination: &s.pushes.most,
			Usage: "send `N` of them; 0 never ends"},
		&durationFlag{Name: "ping", Category: aboutPushes, Destination: &s.ping,
			Usage: "send a ping every `DURATION`; 0 sends none"},

		&cli.StringSliceFlag{Name: "fault", Aliases: []string{"f"}, Category: aboutFaults, Destination: &s.faultSet,
			Usage: "let `FAULT` happen to every connection, such as \"after 10s drop\"; repeatable"},
		&cli.StringFlag{Name: "commands", Category: aboutFaults, Destination: &s.commands, Value: "/",
			Usage: "take a text message that begins with `PREFIX` for a fault; \"\" takes none"},

		&cli.StringFlag{Name: "replay", Category: aboutReplay, Destination: &s.replay, TakesFile: true,
			Usage: "send what the recording in `FILE` says: each connection gets its next session"},
		&cli.FloatFlag{Name: "speed", Category: aboutReplay, Destination: &s.speed, Value: 1,
			Usage: "replay `N` times as fast; 0 is as fast as it goes"},
		&cli.BoolFlag{Name: "loop", Category: aboutReplay, Destination: &s.loop,
			Usage: "begin again after the last session"},
		&cli.BoolFlag{Name: "whole", Category: aboutReplay, Destination: &s.whole,
			Usage: "replay the whole recording on each connection, without the ends of its sessions"},
	}
}

// server is "resock serve" as it runs.
type server struct {
	*serveSettings
	mode   websocket.CompressionMode
	faults []*fault      // of -fault
	tasks  []func(*peer) // that run beside the reading of a connection
	player *player       // or nil

	stopping chan struct{} // closed when the server ends

	mu        sync.Mutex
	peers     map[*peer]struct{}
	number    int
	failing   *fault // of new connections, or nil
	failure   lapse
	failsLeft int
	recovered chan struct{} // closed when failing ends
	done      chan struct{} // closed when the last connection ended, once it stops
}

// serve is "resock serve".
func (set *serveSettings) serve(ctx context.Context, cmd *cli.Command) error {
	s := &server{
		serveSettings: set, stopping: make(chan struct{}), recovered: make(chan struct{}),
		peers: map[*peer]struct{}{},
	}
	if err := s.prepare(cmd); err != nil {
		return usage(err)
	}
	if set.replay != "" {
		var err error
		if s.player, err = newPlayer(set); err != nil {
			return &exitError{exitFailed, fmt.Errorf("-replay %s: %w", set.replay, plain(err))}
		}
		s.tasks = append(s.tasks, s.player.play)
	}
	listener, err := s.open()
	if err != nil {
		return &exitError{exitFailed, err}
	}
	return s.run(ctx, listener)
}

// prepare rejects what cannot work.
func (s *server) prepare(cmd *cli.Command) (err error) {
	switch {
	case cmd.NArg() > 1:
		return fmt.Errorf("one address is wanted, not %q", cmd.Args().Slice())
	case cmd.NArg() == 1 && cmd.IsSet("listen"):
		return errors.New("the address is given twice, by -listen too")
	case cmd.NArg() == 1:
		s.listen = cmd.Args().First()
	}
	if !strings.Contains(s.listen, ":") { // a port
		s.listen = "127.0.0.1:" + s.listen
	}
	switch {
	case s.keyFile != "" && s.certFile == "":
		return errors.New("-key needs -cert")
	case s.certOut != "" && (!s.tls || s.certFile != ""):
		return errors.New("-cert-out needs -tls, and no -cert")
	case s.header != "" && !strings.Contains(s.header, ":"):
		return errors.New(`-require-header wants "Name: value"`)
	case !(s.speed >= 0): // nor NaN
		return fmt.Errorf("-speed %v: must not be negative", s.speed)
	case s.ping < 0:
		return fmt.Errorf("-ping %v: must not be negative", s.ping)
	case s.pushes.most < 0:
		return fmt.Errorf("-push-count %d: must not be negative", s.pushes.most)
	case s.replay == "" && (s.loop || s.whole || cmd.IsSet("speed")):
		return errors.New("-speed, -loop and -whole need -replay")
	case s.pace == "" && (cmd.IsSet("push-text") || cmd.IsSet("push-size") || cmd.IsSet("push-count") || s.pushes.binary):
		return errors.New("-push-text, -push-size, -push-binary and -push-count need -push")
	}
	if !cmd.IsSet("echo") && (s.replay != "" || s.pace != "") {
		s.echo = false
	}
	if s.mode, err = compressionMode(s.compression); err != nil {
		return err
	}
	if s.pace != "" {
		if s.pushes.every, err = parsePace(s.pace); err != nil {
			return fmt.Errorf("-push %q: %w", s.pace, err)
		}
		if s.pushes.every == 0 {
			return errors.New("-push 0: must be positive")
		}
		s.tasks = append(s.tasks, s.pushes.run)
	}
	if s.ping > 0 {
		s.tasks = append(s.tasks, s.pingEach)
	}
	for _, text := range s.faultSet {
		f, err := parseFault(text)
		if err != nil {
			return err
		}
		s.faults = append(s.faults, f)
	}
	return nil
}

// open listens.
func (s *server) open() (net.Listener, error) {
	listener, err := net.Listen("tcp", s.listen)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("%s is in use by another program; choose another address by -listen", s.listen)
		}
		return nil, err
	}
	if !s.secure() {
		return listener, nil
	}
	certificate, err := s.certificate()
	if err != nil {
		_ = listener.Close()
		return nil, err
	}
	return tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}}), nil
}

func (s *server) secure() bool { return s.tls || s.certFile != "" }

// run serves until a signal, or the end of ctx.
func (s *server) run(ctx context.Context, listener net.Listener) error {
	if _, err := fmt.Println(s.url(listener.Addr())); err != nil {
		return &exitError{exitFailed, fmt.Errorf("standard output: %w", plain(err))}
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, f := range s.faults {
		if f.kind.peer == nil {
			s.schedule(f)
		}
	}
	if !isTerminal(os.Stdin) || foreground(os.Stdin) { // else reading would stop the program
		go s.readCommands(os.Stdin)
	}
	h := &http.Server{
		Handler: http.HandlerFunc(s.answer), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0),
		ConnState: func(c net.Conn, state http.ConnState) {
			if state == http.StateNew {
				s.greet(c)
			}
		},
	}
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(listener) }()
	select {
	case err := <-failed:
		return &exitError{exitFailed, err}
	case <-ctx.Done():
	}
	stop() // a second signal ends the program
	s.shutDown(h)
	return nil
}

// url is where clients of this machine find the server.
func (s *server) url(address net.Addr) string {
	u := url.URL{Scheme: "ws", Host: address.String(), Path: "/"}
	if s.secure() {
		u.Scheme = "wss"
	}
	if tcp, ok := address.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() { // no certificate is valid for that
		u.Host = net.JoinHostPort("localhost", strconv.Itoa(tcp.Port))
	}
	return u.String()
}

// greet resets a new connection, if that is the fault.
func (s *server) greet(c net.Conn) {
	if f := s.nextFailure("refuse"); f != nil {
		s.log("%s: %s", c.RemoteAddr(), f.text)
		newGate(c).reset()
	}
}

// answer answers a request.
func (s *server) answer(w http.ResponseWriter, r *http.Request) {
	if s.meet(s.nextFailure("status", "hang"), w, r) {
		return
	}
	if !s.authorized(r) {
		s.log("%s: 401, without what is required", r.RemoteAddr)
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "resock serve: a header or token is required", http.StatusUnauthorized)
		return
	}
	s.serve(w, r)
}

func (s *server) authorized(r *http.Request) bool {
	if name, want, ok := strings.Cut(s.header, ":"); ok && !same(r.Header.Get(strings.TrimSpace(name)), strings.TrimSpace(want)) {
		return false
	}
	return s.token == "" || same(r.Header.Get("Authorization"), "Bearer "+s.token) || same(r.URL.Query().Get("token"), s.token)
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// add registers a connection. It reports false when the server ends.
func (s *server) add(p *peer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done != nil {
		return false
	}
	s.number++
	p.number = s.number
	s.peers[p] = struct{}{}
	return true
}

func (s *server) remove(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.peers, p); len(s.peers) == 0 && s.done != nil {
		close(s.done)
	}
}

// everyone returns the connections that there are.
func (s *server) everyone() []*peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*peer, 0, len(s.peers))
	for p := range s.peers {
		all = append(all, p)
	}
	return all
}

// shutDown closes all connections by 1001. Those that do not answer within a second are
// cut.
func (s *server) shutDown(h *http.Server) {
	close(s.stopping)
	s.mu.Lock()
	s.done = make(chan struct{})
	if len(s.peers) == 0 {
		close(s.done)
	}
	s.mu.Unlock()
	for _, p := range s.everyone() {
		p.ends("it is going away")
		go p.conn.Close(websocket.StatusGoingAway, goingAway)
	}
	select {
	case <-s.done:
	case <-time.After(time.Second):
		for _, p := range s.everyone() {
			p.gate.end()
		}
		<-s.done
	}
	_ = h.Close()
}

// pingEach pings p until the connection ends.
func (s *server) pingEach(p *peer) {
	for p.gate.sleep(s.ping, nil) {
		ctx, cancel := context.WithTimeout(p.ctx, s.ping)
		began := time.Now()
		err := p.conn.Ping(ctx)
		cancel()
		switch {
		case err == nil:
			p.log("pong after %v", brief(time.Since(began)))
		case p.ctx.Err() == nil:
			p.log("no pong within %v", s.ping)
		}
	}
}

// readCommands lets faults happen that are typed.
func (s *server) readCommands(from io.Reader) {
	for lines := bufio.NewScanner(from); lines.Scan(); {
		switch text := strings.TrimSpace(lines.Text()); text {
		case "":
		case "help":
			fmt.Fprint(os.Stderr, faultHelp())
		default:
			f, err := parseFault(text)
			if err != nil {
				fmt.Fprintf(os.Stderr, "resock serve: %v; help lists all\n", err)
				continue
			}
			s.schedule(f)
		}
	}
}

// schedule lets a fault happen at its time, to all connections that there are, and to
// those to come if it is about them.
func (s *server) schedule(f *fault) {
	if f.kind.peer != nil {
		for _, p := range s.everyone() {
			p.schedule(f)
		}
	}
	if f.kind.server == nil || f.messages > 0 { // new connections have no messages
		return
	}
	if f.atOnce() {
		s.strike(f)
		return
	}
	after(f, context.Background(), s.strike)
}

func (s *server) strike(f *fault) {
	f.kind.server(s, f)
	s.log("fault: %s", f.text)
}

// log tells what happens.
func (s *server) log(format string, args ...any) {
	if s.quiet {
		return
	}
	text := appendVisible(nil, fmt.Appendf(nil, format, args...))
	text = bytes.ReplaceAll(text, []byte("\n"), []byte(`\x0a`)) // a client must not write lines of its own
	fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format("15:04:05.000"), text)
}
