package resockotel

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/resock/resock"
)

// serverOf returns the attributes of the server, for a URL whose secrets are redacted.
func serverOf(redacted string) []attribute.KeyValue {
	attrs := []attribute.KeyValue{semconv.URLFull(redacted)}
	u, err := url.Parse(redacted)
	if err != nil {
		return attrs
	}
	port, err := strconv.Atoi(u.Port())
	switch {
	case err == nil:
	case u.Scheme == "wss":
		port = 443
	default:
		port = 80
	}
	return append(attrs, semconv.ServerAddress(u.Hostname()), semconv.ServerPort(port))
}

// nextOf returns the attributes of what follows.
func nextOf(next resock.State, in time.Duration, rule string) []attribute.KeyValue {
	attrs := []attribute.KeyValue{attribute.String("resock.next", next.String())}
	if next == resock.StateWaiting {
		attrs = append(attrs, attribute.Float64("resock.retry_in", in.Seconds()))
	}
	if rule != "" {
		attrs = append(attrs, attribute.String("resock.rule", rule))
	}
	return attrs
}

// failureOf returns the attributes of an error: its type, and the HTTP status or the address
// that it is about.
func failureOf(phase resock.Phase, err error) (attrs []attribute.KeyValue) {
	var dial *resock.DialError
	var timeout net.Error
	kind := phaseName(phase)
	switch {
	case errors.As(err, &dial) && dial.Status != 0:
		kind = strconv.Itoa(dial.Status)
		attrs = append(attrs, semconv.HTTPResponseStatusCode(dial.Status))
	case errors.As(err, &timeout) && timeout.Timeout():
		kind = "timeout"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		if tcp, ok := op.Addr.(*net.TCPAddr); ok {
			attrs = append(attrs, semconv.NetworkPeerAddress(tcp.IP.String()), semconv.NetworkPeerPort(tcp.Port))
		}
	}
	return append(attrs, semconv.ErrorTypeKey.String(kind))
}

func phaseName(p resock.Phase) string { return strings.ToLower(p.String()) }
