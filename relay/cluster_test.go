package relay

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// cluster is three servers of NATS, each with a copy of the stream.
type cluster struct {
	t       testing.TB
	options [3]*natsserver.Options
	servers [3]*natsserver.Server
}

func startCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{t: t}
	var routes []*url.URL
	for i := range c.options {
		o := &natsserver.Options{
			ServerName: fmt.Sprint("n", i), JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
			Host: "127.0.0.1", Port: freePort(t), Cluster: natsserver.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: freePort(t)},
		}
		c.options[i] = o
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", o.Cluster.Port)})
	}
	for i, o := range c.options {
		o.Routes = routes
		c.start(i)
	}
	t.Cleanup(func() {
		for i := range c.servers {
			c.stop(i)
		}
	})
	eventually(t, "a leader of the cluster", func() bool {
		for _, s := range c.servers {
			if s.JetStreamIsLeader() {
				return s.JetStreamClusterPeers() != nil && len(s.JetStreamClusterPeers()) == 3
			}
		}
		return false
	})
	return c
}

func (c *cluster) start(i int) {
	c.t.Helper()
	s, err := natsserver.NewServer(c.options[i].Clone())
	if err != nil {
		c.t.Fatal(err)
	}
	s.Start()
	c.servers[i] = s
	if !s.ReadyForConnections(20 * time.Second) {
		c.t.Fatal("a server is not ready")
	}
}

func (c *cluster) stop(i int) {
	c.servers[i].Shutdown()
	c.servers[i].WaitForShutdown()
}

func (c *cluster) connect() *nats.Conn {
	c.t.Helper()
	var urls []string
	for _, s := range c.servers {
		urls = append(urls, s.ClientURL())
	}
	conn, err := nats.Connect(strings.Join(urls, ","), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(conn.Close)
	return conn
}

// leads returns which server leads the stream.
func (c *cluster) leads() (leader int) {
	c.t.Helper()
	eventually(c.t, "a leader of the stream", func() bool {
		for i, s := range c.servers {
			if s.Running() && s.JetStreamIsStreamLeader(natsserver.DEFAULT_GLOBAL_ACCOUNT, "ticks") {
				leader = i
				return true
			}
		}
		return false
	})
	return leader
}

// TestClusterLosesServers restarts the servers of a cluster one after the other, the leader
// of the stream among them, and lets them catch up, while the feed goes on.
func TestClusterLosesServers(t *testing.T) {
	c, u := startCluster(t), startFeed(t)
	config := u.config(c.connect())
	config.TTL = 5 * time.Second
	config.Stream = jetstream.StreamConfig{Replicas: 3}
	r := startRelay(t, config)
	eventually(t, "a session", func() bool { return u.Sessions() == 1 })
	stop := u.push(time.Millisecond)
	for _, i := range []int{c.leads(), (c.leads() + 1) % 3} {
		c.stop(i)
		before := r.Stats().Written
		eventually(t, "more messages", func() bool { return r.Stats().Written > before+1000 })
		c.start(i)
		before = r.Stats().Written
		eventually(t, "more messages", func() bool { return r.Stats().Written > before+100 })
	}
	stop()
	unbroken(t, c.connect(), u.Last())
}
