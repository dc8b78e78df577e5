package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// story does to a service what happens to services.
type story struct {
	server   *server
	public   string // URLs of the service
	admin    string
	accepted int // reports
}

// tell ends with a signal to this process, whatever happened before.
func (s *story) tell() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return errors.Join(s.day(ctx), s.night(ctx), s.terminate())
}

// day is how it should be.
func (s *story) day(ctx context.Context) error {
	say("story", "the service starts")
	if err := errors.Join(s.untilReady(ctx, http.StatusOK), s.report(ctx, 3), s.server.untilReceived(ctx, 3)); err != nil {
		return err
	}
	time.Sleep(1500 * time.Millisecond)
	return s.look(ctx)
}

// night is an outage. The service goes on to accept reports.
func (s *story) night(ctx context.Context) error {
	say("story", "the server of the connection goes down")
	s.server.stop()
	if err := errors.Join(s.untilReady(ctx, http.StatusServiceUnavailable), s.report(ctx, 20)); err != nil {
		return err
	}
	time.Sleep(1500 * time.Millisecond)
	return s.look(ctx)
}

// terminate ends the service during the outage, which is over a little later.
func (s *story) terminate() error {
	say("story", "SIGTERM")
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	if err := self.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	s.server.stop()
	time.Sleep(1500 * time.Millisecond)
	say("story", "the server of the connection is up again")
	s.server.start()
	return nil
}

// report sends n reports to the service.
func (s *story) report(ctx context.Context, n int) error {
	for range n {
		report := fmt.Sprintf("report %d", s.accepted+1)
		status, answer, err := s.call(ctx, http.MethodPost, s.public+"/reports", report)
		if err != nil {
			return err
		}
		if status != http.StatusAccepted {
			return fmt.Errorf("%s: status %d: %s", report, status, answer)
		}
		s.accepted++
	}
	say("story", "%d reports are accepted", n)
	return nil
}

// untilReady asks the readiness probe until it answers with that status, and shows the
// answers that differ from the one before.
func (s *story) untilReady(ctx context.Context, want int) error {
	for last := ""; ; {
		status, answer, err := s.call(ctx, http.MethodGet, s.admin+"/readyz", "")
		if err != nil {
			return err
		}
		if answer != last {
			say("readyz", "%d %s", status, strings.ReplaceAll(strings.TrimSpace(answer), "\n", ": "))
			last = answer
		}
		if status == want {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// call makes a request to the service.
func (s *story) call(ctx context.Context, method, url, body string) (status int, answer string, err error) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// look shows what the debug page says, in its form for machines, and some of the metrics.
func (s *story) look(ctx context.Context) error {
	status, answer, err := s.call(ctx, http.MethodGet, s.admin+"/debug/resock?json", "")
	if err != nil {
		return err
	}
	var page struct {
		Clients []struct {
			Name, State, LastError string
			Queued                 int
		}
	}
	if err := json.Unmarshal([]byte(answer), &page); err != nil {
		return fmt.Errorf("the debug page, status %d: %w", status, err)
	}
	for _, c := range page.Clients {
		say("debug", "%s: %s, %d queued", c.Name, c.State, c.Queued)
	}
	return nil
}
