// Package rig is the harness for tests of resock that live outside the package.
//
// A test runs in virtual time against a scripted in-memory server, and receives the
// client's events one by one:
//
//	func TestComesBack(t *testing.T) {
//		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
//			client := rig.Reaching(t, s, resock.WithHeartbeat(0, 0))
//			client.Open()
//			s.Accept().Drop()
//			client.Fail(resock.PhaseRead)
//			client.Open()
//		})
//	}
//
// When the test ends, the client is closed and checked against the guarantees that hold
// whatever happened, G1 to G9 in faults/README.md:
//
//   - the events follow the grammar (G1), and nothing follows the last one (G2);
//   - attempts do not follow each other too fast (G5);
//   - closing takes no longer than the close timeout (G7);
//   - no event, error or log record contains [Secret] (G8);
//   - every message of [Client.Queue] has exactly one outcome (G9).
//
// In virtual time, synctest itself fails a test that leaves a goroutine behind; on real
// sockets [CheckLeaks] does (G3). The race detector covers G4, and G6 has tests of its
// own.
//
// [Reaching] and [Quick] start a client with a short backoff and a short close timeout,
// [Start] one with the defaults. [Bare] is for tests that call Run and subscribe
// themselves.
package rig
