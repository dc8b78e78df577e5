package resock

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestDefaultRetryPolicyStatuses(t *testing.T) {
	for status := 100; status <= 599; status++ {
		want := ActionRetry
		if status >= 300 && status <= 499 && status != 408 && status != 425 && status != 429 {
			want = ActionRetrySlow
		}
		f := Failure{Phase: PhaseUpgrade, Status: status, Code: -1, RetryAfter: time.Minute}
		d := DefaultRetryPolicy(f)
		if d.Action != want {
			t.Errorf("status %d: action %d, want %d", status, d.Action, want)
		}
		if d.After != time.Minute {
			t.Errorf("status %d: floor %v, want Retry-After", status, d.After)
		}
		if d.Rule == "" {
			t.Errorf("status %d: got no rule", status)
		}
	}
}

func TestDefaultRetryPolicyCloseCodes(t *testing.T) {
	poison := map[StatusCode]bool{1002: true, 1003: true, 1007: true, 1009: true, 1010: true}
	for code := StatusCode(0); code <= 5000; code++ {
		for repeats := range 7 {
			d := DefaultRetryPolicy(Failure{Code: code, Repeats: repeats})
			want := Decision{}
			switch {
			case code == 1012 || code == 1013:
				want.Spread = 2
			case code == 1008:
				want.Action = ActionRetrySlow
			case poison[code] && repeats >= 2:
				want.Action = ActionRetrySlow
			}
			if d.Action != want.Action || d.Spread != want.Spread || d.After != 0 || d.Rule == "" {
				t.Errorf("code %d, %d times: %+v, want %+v", code, repeats, d, want)
			}
		}
	}
}

func TestDefaultRetryPolicyPhases(t *testing.T) {
	untrusted := &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}
	for phase := Phase(0); phase <= PhaseProtocol; phase++ {
		d := DefaultRetryPolicy(Failure{Phase: phase, Code: -1, Err: errors.New("some error")})
		rule := "connection"
		if phase == 0 {
			rule = "closed"
		}
		if d.Action != ActionRetry || d.Rule != rule {
			t.Errorf("phase %v: %+v, want a plain retry, %q", phase, d, rule)
		}
	}
	for _, err := range []error{untrusted, x509.UnknownAuthorityError{}, x509.HostnameError{Certificate: &x509.Certificate{}}, x509.CertificateInvalidError{}, &hiddenError{"withheld", untrusted}} {
		if d := DefaultRetryPolicy(Failure{Phase: PhaseTLS, Code: -1, Err: err}); d.Action != ActionRetrySlow {
			t.Errorf("certificate error %T: %+v, want a slow retry", err, d)
		}
	}
	for after, want := range map[time.Duration]time.Duration{
		-time.Second:  0,
		time.Second:   time.Second,
		math.MaxInt64: 5 * time.Minute,
	} {
		if d := DefaultRetryPolicy(Failure{Phase: PhaseUpgrade, Status: 503, Code: -1, RetryAfter: after}); d.After != want {
			t.Errorf("Retry-After %v: floor %v, want %v", after, d.After, want)
		}
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                              0,
		"3":                             3 * time.Second,
		" 120 ":                         2 * time.Minute,
		"-5":                            0,
		"1.5":                           0,
		"soon":                          0,
		"99999999999":                   math.MaxInt64 / time.Second * time.Second,
		"99999999999999999999999999999": math.MaxInt64 / time.Second * time.Second,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second,
		"Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := parseRetryAfter(value, now); got != want {
			t.Errorf("Retry-After %q: %v, want %v", value, got, want)
		}
	}
}

func TestPhaseAndStateNames(t *testing.T) {
	for phase := PhaseEndpoint; phase <= PhaseProtocol; phase++ {
		if phase.String() == "" || phase.String() == "unknown" {
			t.Errorf("phase %d has no name", phase)
		}
	}
	for state := StateIdle; state <= StateClosed; state++ {
		if state.String() == "" || state.String() == "unknown" {
			t.Errorf("state %d has no name", state)
		}
	}
	for _, unknown := range []int{-1, int(PhaseProtocol) + 1, 99} {
		if Phase(unknown).String() != "unknown" || State(unknown).String() != "unknown" {
			t.Errorf("names beyond the tables: got %v, %v, want unknown", Phase(unknown), State(unknown))
		}
	}
	if Phase(0).String() != "none" || State(StateClosed+1).String() != "unknown" {
		t.Error("the names at the ends of the tables are wrong")
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, value := range []string{
		"", "0", "120", " 7 ", "-1", "+5", "1.5", "1e3", "0x10", "9223372036", "9223372037", "99999999999999999999",
		"-99999999999999999999", "Wed, 21 Oct 2026 07:28:00 GMT", "Wednesday, 21-Oct-26 07:28:00 GMT",
		"Wed Oct 21 07:28:00 2026", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "soon",
	} {
		f.Add(value)
	}
	now := time.Date(2026, 10, 21, 7, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value string) {
		got := parseRetryAfter(value, now)
		if got < 0 {
			t.Errorf("Retry-After %q: got %v, want no negative delay", value, got)
		}
		if padded := parseRetryAfter(" "+value+"\t", now); padded != got {
			t.Errorf("Retry-After %q: got %v, and %v with space around it", value, got, padded)
		}
		date, err := http.ParseTime(strings.TrimSpace(value))
		if later := parseRetryAfter(value, now.Add(time.Hour)); err == nil && later > got {
			t.Errorf("Retry-After %q: got %v, and later %v, want the date to come closer", value, got, later)
		} else if err != nil && later != got {
			t.Errorf("Retry-After %q is no date, but gave %v, and %v an hour later", value, got, later)
		}
		if err == nil && date.Before(now) && got != 0 {
			t.Errorf("Retry-After %q is in the past, but gave %v", value, got)
		}
	})
}
