// Package netwatch tells a resock client whether there is a network, and when
// it changed:
//
//	client, err := resock.New("wss://example.com/push", resock.WithNetwork(netwatch.Default()))
//
// The client then does not dial while the machine is offline, dials when it is
// back, and probes an open connection as soon as the network under it changes,
// which finds a dead one sooner than the next heartbeat.
//
// # Online
//
// The machine is online while some interface other than the loopback is running
// (administratively up, and with a carrier), and some running interface, the
// loopback included, has a global unicast address: neither loopback nor
// link-local; private addresses count. The two may be different interfaces, as on
// hosts that route their address over unnumbered links.
//
// A default route is not required: a private network has none. What the machine
// cannot tell counts as online, since a wrong answer in that direction costs a
// failed attempt, and in the other one the connection. So do the virtual
// interfaces of a host: a bridge with a running container on it keeps the host
// online while its cable is unplugged.
//
// Inside a container only the container's own interfaces are seen. Their state
// tells when the container is attached to a network or detached from one, and
// nothing of the host's uplink.
//
// # Changes
//
// A change is an interface that begins or ceases to run, an address that comes or
// goes, and, on Linux, a default route that does. Changes come in bursts: what
// happens within 100 ms of the first is reported once, at the end of them.
//
// On Linux the kernel tells of changes at once (of a lost carrier within a
// second), by netlink. On other systems, and where netlink is not permitted, the
// watcher looks every 3 s. So it does in any case while the machine is offline,
// lest a lost notification keep it there.
//
// One watcher serves the whole process, however many clients it has: one socket
// and two goroutines, from the first subscription to the end of the last.
package netwatch
