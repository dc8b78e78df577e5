package resockotel

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/resock/resock"
)

// blockedLong is for how long delivery must have been blocked to be an event of the span of
// its session. It is what the client logs, too.
const blockedLong = time.Second

// spans makes the spans of one client, with the times of its events.
type spans struct {
	tracer  trace.Tracer
	name    attribute.KeyValue
	session trace.Span   // the open one, or one that does nothing
	before  resock.Stats // as the last attempt or session ended
}

func newSpans(tracer trace.Tracer, name attribute.KeyValue, now resock.Stats) spans {
	return spans{tracer: tracer, name: name, session: trace.SpanFromContext(context.Background()), before: now}
}

// start begins a trace of its own: a session may last for weeks.
func (s *spans) start(name string, at time.Time, attrs []attribute.KeyValue, links ...trace.Link) trace.Span {
	attrs = slices.Concat([]attribute.KeyValue{s.name, semconv.NetworkProtocolName("websocket")}, attrs)
	_, span := s.tracer.Start(context.Background(), name, trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindClient),
		trace.WithTimestamp(at), trace.WithAttributes(attrs...), trace.WithLinks(links...))
	return span
}

// open ends the span of the attempt and begins that of the session, each with a link to the
// other.
func (s *spans) open(e resock.OpenEvent) {
	attrs := append(serverOf(e.URL), attribute.Int("resock.attempt.number", e.Attempt), attribute.Int64("resock.session.number", int64(e.Session)))
	attempt := s.start("resock.attempt", e.Time.Add(-e.Took), attrs)
	s.session = s.start("resock.session", e.Time, attrs, trace.Link{SpanContext: attempt.SpanContext()})
	attempt.AddLink(trace.Link{SpanContext: s.session.SpanContext()})
	attempt.End(trace.WithTimestamp(e.Time))
}

// fail ends the span of a session, or makes that of an attempt.
func (s *spans) fail(e resock.FailEvent, now resock.Stats) {
	span := s.session
	if e.Session == 0 {
		span = s.start("resock.attempt", e.Time.Add(-e.Took), []attribute.KeyValue{attribute.Int("resock.attempt.number", e.Attempt)})
	} else {
		s.sum(e.Time, now)
	}
	span.SetAttributes(nextOf(e.Next, e.RetryIn, e.Rule)...)
	span.SetAttributes(phaseKey.String(phaseName(e.Phase)))
	if canceled := e.Rule == "" && errors.Is(e.Err, context.Canceled); !canceled {
		span.SetStatus(codes.Error, e.Err.Error())
		span.SetAttributes(failureOf(e.Phase, e.Err)...)
	}
	s.end(span, e.Time, now)
}

// close ends the span of a session.
func (s *spans) close(e resock.CloseEvent, now resock.Stats) {
	s.sum(e.Time, now)
	s.session.SetAttributes(nextOf(e.Next, e.RetryIn, e.Rule)...)
	s.session.SetAttributes(attribute.Int("resock.close.code", int(e.Code)), attribute.Bool("resock.close.clean", e.Clean))
	if e.Reason != "" {
		s.session.SetAttributes(attribute.String("resock.close.reason", e.Reason))
	}
	if e.Rule != "" && isError(e.Code) {
		s.session.SetStatus(codes.Error, "closed with code "+strconv.Itoa(int(e.Code)))
		s.session.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(int(e.Code))))
	}
	s.end(s.session, e.Time, now)
}

// abandon ends the span of a session whose end will not be seen.
func (s *spans) abandon(now resock.Stats) {
	at := time.Now()
	s.sum(at, now)
	s.end(s.session, at, now)
}

func (s *spans) end(span trace.Span, at time.Time, now resock.Stats) {
	span.End(trace.WithTimestamp(at))
	s.before = now
	if span == s.session {
		s.session = trace.SpanFromContext(context.Background())
	}
}

// sum adds to the span of the session what happened during it.
func (s *spans) sum(at time.Time, now resock.Stats) {
	s.session.SetAttributes(
		attribute.Int64("resock.session.messages_received", int64(now.MessagesIn-s.before.MessagesIn)),
		attribute.Int64("resock.session.messages_sent", int64(now.MessagesOut-s.before.MessagesOut)),
		attribute.Int64("resock.session.bytes_received", int64(now.BytesIn-s.before.BytesIn)),
		attribute.Int64("resock.session.bytes_sent", int64(now.BytesOut-s.before.BytesOut)))
	if dropped := now.Dropped - s.before.Dropped; dropped > 0 {
		s.session.AddEvent("resock.dropped", trace.WithTimestamp(at), trace.WithAttributes(
			attribute.Int64("resock.dropped.messages", int64(dropped))))
	}
	if blocked := now.Blocked - s.before.Blocked; blocked >= blockedLong {
		attrs := []attribute.KeyValue{attribute.Float64("resock.blocked.duration", blocked.Seconds())}
		if now.BlockedBy != "" {
			attrs = append(attrs, attribute.String("resock.blocked.by", now.BlockedBy))
		}
		s.session.AddEvent("resock.blocked", trace.WithTimestamp(at), trace.WithAttributes(attrs...))
	}
}
