// Package resocktest is a scripted WebSocket server for testing how a client
// behaves when its connection does not.
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
//			server.Accept().Drop() // the connection breaks
//			server.Accept()        // and the client is back
//			client.Close(resock.StatusNormalClosure, "")
//			<-client.Done()
//		})
//	}
//
// It knows nothing of the client, which may be any that dials by net/http.
//
// # Servers
//
// [NewServer] listens on a TCP port of this machine. [NewMemory] has no sockets:
// in a bubble of [testing/synctest] a test of an hour of silence takes no time,
// and always goes the same way. [NewTLSServer] and [NewTLSMemory] are the same
// with TLS. Dial them by the HTTP client that [Server.Client] returns; a server on
// TCP without TLS may be dialed in any other way, too.
//
// # Step by step
//
// At first a server upgrades every connection, reads it and answers its pings. The
// test takes connections by [Server.Accept], in order, and tells each what to do:
// [Conn.Push], [Conn.Close], [Conn.StopReading], [Conn.CutAfter], [Conn.Reset] and
// so on. [Server.Stop] and [Server.Restart] are an outage of the whole server.
//
// # Scripts
//
// What goes wrong before there is a connection is set in advance, one [Step] for
// each attempt; the last one repeats:
//
//	server.Script(
//		resocktest.Refuse(),
//		resocktest.StallUpgrade(),
//		resocktest.Status(503, http.Header{"Retry-After": {"60"}}, ""),
//		resocktest.Echo(),
//	)
//
// [Serve] makes a step of a function that drives the connection without the test.
//
// # What came
//
// [Server.Attempts] has the time of every attempt and its request, with the
// credentials that a test may want to see. [Conn.Received] has the messages, pings,
// pongs and the close frame of one connection, and how it ended.
//
// # Limits
//
// A server offers no compression of its own: a test that negotiates it by [Upgrade]
// sends compressed frames by [Conn.Raw], and finds the client's as they came. In
// memory a connection takes 64 KiB in each direction before writes block; the
// kernel takes more.
package resocktest
