// Package rig is the harness of the tests of resock, from outside of its package.
//
// A test runs in virtual time, against a server in memory that does what the test
// says, and takes the events one by one:
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
// When the test ends, the client is closed, and what must hold whatever happened is
// checked. The guarantees G1 to G9 are those of the table in faults/README.md:
//
//   - the events follow the grammar (G1), and nothing follows the last one (G2);
//   - the attempts are not too many (G5);
//   - closing takes no longer than the close timeout (G7);
//   - no event, no error and no record of the log has [Secret] in it (G8);
//   - every message of [Client.Queue] has exactly one outcome (G9).
//
// Goroutines that are left fail a test in virtual time by themselves; on real
// sockets [CheckLeaks] looks for them (G3). The race detector is for G4, and G6 has
// tests of its own.
//
// [Reaching] and [Quick] start a client that is quicker than by default. [Start] has
// the defaults. [Bare] is for a test that runs the client and subscribes by itself.
package rig
