package main

import (
	"time"

	"github.com/urfave/cli/v3"
)

// Subjects of the flags in -help.
const (
	aboutRequest    = "Request"
	aboutNetwork    = "Network and TLS"
	aboutConnection = "Connection"
	aboutSending    = "Sending and ending"
	aboutOutput     = "Output"
)

// flags are the flags of "resock URL". Where websocat, wscat or curl have a name for a
// thing, it is that.
func (s *settings) flags() []cli.Flag {
	var all []cli.Flag
	for _, some := range [][]cli.Flag{
		s.requestFlags(), s.networkFlags(), s.connectionFlags(), s.sendingFlags(), s.outputFlags(),
	} {
		all = append(all, some...)
	}
	return all
}

func (s *settings) requestFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "header", Aliases: []string{"H"}, Category: aboutRequest, Local: true, Destination: &s.header,
			Usage: "send `\"Name: value\"` with the upgrade request; @FILE reads such lines from a file, anew for each attempt; repeatable"},
		&cli.StringSliceFlag{Name: "subprotocol", Aliases: []string{"s", "protocol"}, Category: aboutRequest, Local: true, Destination: &s.subprotocols,
			Usage: "offer the subprotocol `NAME`; repeatable, the preferred one first"},
		&cli.StringFlag{Name: "compression", Category: aboutRequest, Local: true, Destination: &s.compression, Value: "off", DefaultText: "off",
			Usage: "offer permessage-deflate: `MODE` is context (the server may refer to earlier messages), message, or off"},
	}
}

func (s *settings) networkFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "proxy", Aliases: []string{"x"}, Category: aboutNetwork, Local: true, Destination: &s.proxy,
			Usage: "go through the proxy at `URL` (http, https, socks5), or through none by \"none\" (default what HTTPS_PROXY, HTTP_PROXY and NO_PROXY say)"},
		&cli.StringFlag{Name: "cacert", Aliases: []string{"ca"}, Category: aboutNetwork, Local: true, Destination: &s.caFile, TakesFile: true,
			Usage: "trust the certificates in `FILE` (PEM), and no others"},
		&cli.StringFlag{Name: "cert", Category: aboutNetwork, Local: true, Destination: &s.certFile, TakesFile: true,
			Usage: "authenticate by the certificate in `FILE` (PEM), which is read anew for each attempt"},
		&cli.StringFlag{Name: "key", Category: aboutNetwork, Local: true, Destination: &s.keyFile, TakesFile: true,
			Usage: "the private key of -cert, in `FILE` (default the file of -cert)"},
		&cli.BoolFlag{Name: "insecure", Aliases: []string{"k"}, Category: aboutNetwork, Local: true, Destination: &s.insecure,
			Usage: "do not check the server's certificate"},
	}
}

func (s *settings) connectionFlags() []cli.Flag {
	return []cli.Flag{
		&durationFlag{Name: "connect-timeout", Category: aboutConnection, Local: true, Destination: &s.connectTimeout, Value: 10 * time.Second,
			Usage: "limit one attempt, the preamble included, to `DURATION`"},
		&durationFlag{Name: "heartbeat", Aliases: []string{"ping-interval"}, Category: aboutConnection, Local: true, Destination: &s.heartbeat, Value: 15 * time.Second,
			Usage: "send a ping every `DURATION`; 0 sends none"},
		&durationFlag{Name: "heartbeat-timeout", Aliases: []string{"ping-timeout"}, Category: aboutConnection, Local: true, Destination: &s.heartbeatTimeout, Value: 10 * time.Second,
			Usage: "take the connection for dead when nothing comes for `DURATION` after a ping; 0, with -heartbeat-text, expects nothing"},
		&cli.StringFlag{Name: "heartbeat-text", Category: aboutConnection, Local: true, Destination: &s.heartbeatText,
			Usage: "send `TEXT` as the heartbeat in place of a ping"},
		&durationFlag{Name: "idle-timeout", Category: aboutConnection, Local: true, Destination: &s.idleTimeout,
			Usage: "reconnect when no message came for `DURATION`; 0 does not"},
		&cli.IntFlag{Name: "attempts", Category: aboutConnection, Local: true, Destination: &s.attempts,
			Usage: "give up after `N` failed attempts in a row; 0 never does"},
		&durationFlag{Name: "backoff", Category: aboutConnection, Local: true, Destination: &s.backoff, Value: 500 * time.Millisecond,
			Usage: "wait for at most `DURATION` before the first new attempt; the bound doubles each time"},
		&durationFlag{Name: "backoff-max", Category: aboutConnection, Local: true, Destination: &s.backoffMax, Value: 30 * time.Second,
			Usage: "wait for at most `DURATION` before any attempt"},
		&sizeFlag{Name: "read-limit", Category: aboutConnection, Local: true, Destination: &s.readLimit, Value: 1 << 20, DefaultText: "1M",
			Usage: "accept messages of up to `BYTES` (k, M and G are known)"},
	}
}

func (s *settings) sendingFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "preamble", Category: aboutSending, Local: true, Destination: &s.preamble,
			Usage: "send `TEXT` on every connection before anything else; repeatable"},
		&cli.StringFlag{Name: "preamble-file", Category: aboutSending, Local: true, Destination: &s.preambleFile, TakesFile: true,
			Usage: "send the lines of `FILE` so, before those of -preamble"},
		&cli.StringFlag{Name: "request", Aliases: []string{"r"}, Category: aboutSending, Local: true, Destination: &s.request,
			Usage: "send `TEXT`, print the first message that follows, and exit; sent again if the connection is lost before that"},
		&cli.BoolFlag{Name: "binary", Aliases: []string{"b"}, Category: aboutSending, Local: true, Destination: &s.binary,
			Usage: "send lines as binary messages"},
		&cli.BoolFlag{Name: "exit-on-eof", Aliases: []string{"E"}, Category: aboutSending, Local: true, Destination: &s.exitOnEOF,
			Usage: "exit at the end of the input, once the server has read what was sent"},
		&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Category: aboutSending, Local: true, Destination: &s.count,
			Usage: "exit after `N` messages"},
		&durationFlag{Name: "silence", Category: aboutSending, Local: true, Destination: &s.silence,
			Usage: "exit with code 3 when no message came for `DURATION`, connected or not"},
		&cli.IntFlag{Name: "close-code", Category: aboutSending, Local: true, Destination: &s.closeCode, Value: 1000,
			Usage: "close with the code `N` at the end"},
		&cli.StringFlag{Name: "close-reason", Category: aboutSending, Local: true, Destination: &s.closeReason,
			Usage: "and with this `TEXT` as the reason"},
	}
}

func (s *settings) outputFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "json", Aliases: []string{"j"}, Category: aboutOutput, Local: true, Destination: &s.json,
			Usage: "print one JSON object a line for each event: open, message, fail, close"},
		&cli.BoolFlag{Name: "hex", Category: aboutOutput, Local: true, Destination: &s.hex,
			Usage: "print messages as hex dumps"},
		&cli.BoolFlag{Name: "timestamps", Aliases: []string{"t"}, Category: aboutOutput, Local: true, Destination: &s.timestamps,
			Usage: "begin each line with the time (RFC 3339); in -json, a field"},
		&cli.BoolFlag{Name: "rtt", Category: aboutOutput, Local: true, Destination: &s.roundTrips,
			Usage: "tell each round trip of a ping"},
		&cli.BoolFlag{Name: "control", Category: aboutOutput, Local: true, Destination: &s.control,
			Usage: "tell the pings and pongs that come"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Category: aboutOutput, Local: true, Destination: &s.quiet,
			Usage: "tell nothing but errors: no status line, no comings and goings"},
		&cli.StringFlag{Name: "record", Category: aboutOutput, Local: true, Destination: &s.record, TakesFile: true,
			Usage: "write all that happens to `FILE`, for -replay"},
		&cli.StringFlag{Name: "replay", Category: aboutOutput, Local: true, Destination: &s.replay, TakesFile: true,
			Usage: "serve the recording in `FILE`, as resock serve -replay does; an address takes the place of the URL"},
	}
}
