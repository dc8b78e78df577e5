package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/urfave/cli/v3"

	"github.com/resock/resock"
)

// settings are what the flags of "resock URL" say.
type settings struct {
	header       []string
	subprotocols []string
	compression  string

	proxy    string
	caFile   string
	certFile string
	keyFile  string
	insecure bool

	connectTimeout   time.Duration
	heartbeat        time.Duration
	heartbeatTimeout time.Duration
	heartbeatText    string
	idleTimeout      time.Duration
	attempts         int
	backoff          time.Duration
	backoffMax       time.Duration
	readLimit        int64

	preamble     []string
	preambleFile string
	request      string
	binary       bool
	exitOnEOF    bool
	count        int
	silence      time.Duration
	closeCode    int
	closeReason  string

	json       bool
	hex        bool
	timestamps bool
	roundTrips bool
	control    bool
	quiet      bool
	record     string
	replay     string

	requested bool // -request was given, perhaps with an empty text
}

// check rejects flags that do not go together.
func (s *settings) check(cmd *cli.Command) error {
	s.requested = cmd.IsSet("request")
	switch {
	case cmd.NArg() != 1:
		return errNoURL
	case s.json && s.hex:
		return errors.New("-json and -hex are two formats: choose one")
	case s.keyFile != "" && s.certFile == "":
		return errors.New("-key needs -cert")
	case s.count < 0:
		return errors.New("-count must not be negative")
	case !mayBeSent(resock.StatusCode(s.closeCode)):
		return fmt.Errorf("-close-code %d: must be from 1000 to 1014, except for 1004 to 1006, or from 3000 to 4999 (RFC 6455, section 7.4)", s.closeCode)
	case len(s.closeReason) > maxReason:
		return fmt.Errorf("-close-reason has %d bytes, of at most %d", len(s.closeReason), maxReason)
	case s.silence < 0:
		return errors.New("-silence must not be negative")
	case s.requested && s.exitOnEOF:
		return errors.New("-request does not read standard input: -exit-on-eof means nothing with it")
	}
	if s.requested && s.count == 0 {
		s.count = 1
	}
	return s.checkTexts()
}

// checkTexts rejects what cannot be sent as text, and would fail on every connection.
func (s *settings) checkTexts() error {
	texts := map[string][]string{"-preamble": s.preamble, "-heartbeat-text": {s.heartbeatText}, "-close-reason": {s.closeReason}}
	if !s.binary {
		texts["-request"] = []string{s.request}
	}
	for flag, all := range texts {
		if slices.ContainsFunc(all, func(text string) bool { return !utf8.ValidString(text) }) {
			return fmt.Errorf("%s is not valid UTF-8, as text must be", flag)
		}
	}
	return nil
}

// options are the options of the library that the flags mean. What was not given keeps the
// default of the library.
func (s *settings) options(cmd *cli.Command) ([]resock.Option, error) {
	var opts []resock.Option
	given := func(opt resock.Option, flags ...string) {
		for _, flag := range flags {
			if cmd.IsSet(flag) {
				opts = append(opts, opt)
				return
			}
		}
	}
	header, err := parseHeader(s.header)
	if err != nil {
		return nil, err
	}
	mode, err := compressionMode(s.compression)
	if err != nil {
		return nil, err
	}
	client, err := s.httpClient()
	if err != nil {
		return nil, err
	}
	opts = append(opts, resock.WithHTTPClient(client), resock.WithCompression(mode))
	given(resock.WithHeader(header), "header")
	if slices.ContainsFunc(s.header, func(line string) bool { return strings.HasPrefix(line, "@") }) {
		opts = append(opts, resock.WithEndpoint(s.freshHeader))
	}
	given(resock.WithSubprotocols(s.subprotocols...), "subprotocol")
	given(resock.WithDialTimeout(s.connectTimeout), "connect-timeout")
	given(resock.WithHeartbeat(s.heartbeat, s.heartbeatTimeout), "heartbeat", "heartbeat-timeout")
	given(resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) {
		return resock.MessageText, []byte(s.heartbeatText)
	}), "heartbeat-text")
	given(resock.WithIdleTimeout(s.idleTimeout), "idle-timeout")
	given(resock.WithMaxAttempts(s.attempts), "attempts")
	given(s.bounds(cmd), "backoff", "backoff-max")
	given(resock.WithReadLimit(s.readLimit), "read-limit")
	return opts, nil
}

// bounds are those of the backoff. One that is given moves the default of the other.
func (s *settings) bounds(cmd *cli.Command) resock.Option {
	initial, most := s.backoff, s.backoffMax
	if !cmd.IsSet("backoff") {
		initial = min(initial, most)
	}
	if !cmd.IsSet("backoff-max") {
		most = max(initial, most)
	}
	return resock.WithBackoff(initial, most)
}

// freshHeader reads the files of -header anew for each attempt: tokens expire.
func (s *settings) freshHeader(context.Context, resock.Attempt) (resock.Endpoint, error) {
	header, err := parseHeader(s.header)
	return resock.Endpoint{Header: header}, err
}

// parseHeader reads "Name: value", and such lines from a file named by "@file".
func parseHeader(lines []string) (http.Header, error) {
	header := http.Header{}
	for _, line := range lines {
		fields := []string{line}
		if file, ok := strings.CutPrefix(line, "@"); ok {
			var err error
			if fields, err = readLines(file); err != nil {
				return nil, fmt.Errorf("-header: %w", err)
			}
		}
		for _, field := range fields {
			name, value, ok := strings.Cut(field, ":")
			if !ok || strings.TrimSpace(name) == "" {
				return nil, errors.New(`-header wants "Name: value"`) // not what it got, which may be a secret
			}
			header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	return header, nil
}

// readLines returns the lines of a file that are not empty.
func readLines(file string) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

func compressionMode(name string) (websocket.CompressionMode, error) {
	switch name {
	case "", "off":
		return websocket.CompressionDisabled, nil
	case "context":
		return websocket.CompressionContextTakeover, nil
	case "message":
		return websocket.CompressionNoContextTakeover, nil
	}
	return 0, fmt.Errorf("-compression %q: must be off, context or message", name)
}

// optionFlags are the flags behind the options of the library, whose errors name them.
var optionFlags = strings.NewReplacer(
	"resock: ", "",
	"WithHeader", "-header",
	"WithSubprotocols", "-subprotocol",
	"WithCompression", "-compression",
	"WithDialTimeout", "-connect-timeout",
	"WithHeartbeatMessage", "-heartbeat-text",
	"WithHeartbeat", "-heartbeat",
	"WithIdleTimeout", "-idle-timeout",
	"WithMaxAttempts", "-attempts",
	"WithBackoff", "-backoff",
	"WithReadLimit", "-read-limit",
	"WithOnOpen", "-preamble",
	"WithEndpoint", "-header @FILE",
	"WithHTTPClient", "-proxy, -cacert, -cert",
)

var optionCall = regexp.MustCompile(`\b(With[A-Z][A-Za-z]+)\(([^()]*)\)`)

// explain is the text of an error of the library, with flags in place of options.
func explain(err error) string {
	return optionFlags.Replace(optionCall.ReplaceAllString(err.Error(), "$1 $2"))
}

// explainOption is explain for an error of New.
func explainOption(err error) error {
	option := (*resock.OptionError)(nil)
	if !errors.As(err, &option) {
		return errors.New(explain(err))
	}
	name := optionFlags.Replace(option.Option)
	if name == "New" {
		name = "URL"
	}
	return fmt.Errorf("%s %v: %s", name, option.Value, optionFlags.Replace(option.Reason))
}

// connect is "resock URL".
func (s *settings) connect(ctx context.Context, cmd *cli.Command) error {
	if s.replay != "" {
		return s.serve(ctx, cmd)
	}
	if s.preambleFile != "" {
		lines, err := readLines(s.preambleFile)
		if err != nil {
			return usage(fmt.Errorf("-preamble-file: %w", err))
		}
		s.preamble = append(lines, s.preamble...)
	}
	if err := s.check(cmd); err != nil {
		return usage(err)
	}
	opts, err := s.options(cmd)
	if err != nil {
		return usage(err)
	}
	return connect(ctx, s, cmd.Args().First(), opts)
}

// serve is "resock -replay FILE [ADDRESS]".
func (s *settings) serve(ctx context.Context, cmd *cli.Command) error {
	for _, name := range cmd.LocalFlagNames() {
		if name != "replay" {
			return usage(fmt.Errorf("-replay serves a recording: -%s means nothing with it; see resock serve -help", name))
		}
	}
	return serveCommand().Run(ctx, append([]string{"serve", "-replay", s.replay}, cmd.Args().Slice()...))
}
