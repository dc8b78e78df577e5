package centrifuge

import (
	"context"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/prometheus/client_golang/prometheus"
)

// user is the name that the server gives each connection.
const user = "reader"

// server is a node of centrifuge. It keeps the last publications of each channel in memory.
type server struct {
	node    *centrifuge.Node
	http    *httptest.Server
	history int
}

// pinging is how often the server pings. It does not wait for pongs.
func pinging(interval time.Duration) centrifuge.PingPongConfig {
	return centrifuge.PingPongConfig{PingInterval: interval, PongTimeout: -1}
}

func newServer(history int, pings centrifuge.PingPongConfig) (*server, error) {
	node, err := centrifuge.New(centrifuge.Config{
		Metrics: centrifuge.MetricsConfig{RegistererGatherer: prometheus.NewRegistry()},
	})
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{UserID: user}}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			answer(centrifuge.SubscribeReply{Options: centrifuge.SubscribeOptions{EnableRecovery: true}}, nil)
		})
	})
	if err := node.Run(); err != nil {
		return nil, err
	}
	handler := centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{PingPongConfig: pings})
	return &server{node, httptest.NewServer(handler), history}, nil
}

// stop ends the server, as for a restart: it closes its connections and forgets all it has.
func (s *server) stop(t *testing.T) {
	if err := s.node.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	s.http.Close()
}

// address returns where the server listens.
func (s *server) address() string { return s.http.Listener.Addr().String() }

// publish publishes to a channel, and returns where the publication stands.
func (s *server) publish(channel, data string) (centrifuge.StreamPosition, error) {
	result, err := s.node.Publish(channel, []byte(data), centrifuge.WithHistory(s.history, time.Hour))
	return result.StreamPosition, err
}

// epoch returns the epoch of a channel.
func (s *server) epoch(channel string) (string, error) {
	history, err := s.node.History(channel)
	if err == nil && history.Epoch == "" {
		err = fmt.Errorf("channel %s has no epoch", channel)
	}
	return history.Epoch, err
}

// disconnect closes the client's connection, with a code that asks it to come again.
func (s *server) disconnect() error {
	return s.node.Disconnect(user, centrifuge.WithCustomDisconnect(centrifuge.DisconnectForceReconnect))
}
