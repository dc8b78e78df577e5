// Package resocktest provides a scripted WebSocket server for testing how a client
// handles failing connections.
//
//	func TestReconnects(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			server := resocktest.NewMemory(t)
//			client, err := resock.New(server.URL, resock.WithDialOptions(
//				&websocket.DialOptions{HTTPClient: server.Client()}))
//			if err != nil {
//				t.Fatal(err)
//			}
//			go client.Run(t.Context())
//
//			server.Accept().Drop() // the connection is lost
//			server.Accept()        // and the client reconnects
//			client.Close(resock.StatusNormalClosure, "")
//			<-client.Done()
//		})
//	}
//
// The client may be any that dials with net/http.
//
// # Servers
//
// [NewServer] listens on a TCP port of the loopback interface. [NewMemory] uses no
// sockets: in a [testing/synctest] bubble, a test of an hour of silence takes no real
// time. [NewTLSServer] and [NewTLSMemory] are the same with TLS. Dial them with the
// HTTP client that [Server.Client] returns; a server of [NewServer] can be dialed by
// any other client, too.
//
// # Step by step
//
// By default a server upgrades every connection, reads from it and answers pings. The
// test takes the connections in order with [Server.Accept] and tells each what to do:
// [Conn.Push], [Conn.Close], [Conn.StopReading], [Conn.CutAfter], [Conn.Reset] and
// so on. [Server.Stop] and [Server.Restart] make an outage of the whole server.
//
// # Scripts
//
// Faults before a connection is open are scripted in advance, one [Step] per attempt.
// The last step repeats:
//
//	server.Script(
//		resocktest.Refuse(),
//		resocktest.StallUpgrade(),
//		resocktest.Status(503, http.Header{"Retry-After": {"60"}}, ""),
//		resocktest.Echo(),
//	)
//
// [Serve] runs a handler on its own goroutine instead of leaving the connection to the
// test.
//
// # What was received
//
// [Server.Attempts] returns the time and the upgrade request of every attempt, so that
// a test can check credentials. [Conn.Received] returns the messages, pings, pongs and
// the close frame of one connection, and how it ended.
//
// # Limits
//
// A server does not compress or decompress. A test that negotiates compression with
// [Upgrade] sends compressed frames with [Conn.Raw], and receives the client's messages
// as they are. A connection in memory buffers 64 KiB in each direction before writes
// block; the kernel buffers more.
package resocktest
