// Package netwatch tells a resock client whether the machine is online, and when
// the network changes:
//
//	client, err := resock.New("wss://example.com/push", resock.WithNetwork(netwatch.Default()))
//
// The client then does not dial while the machine is offline, dials when it comes
// back online, and probes an open connection as soon as the network changes, which
// detects a dead connection before the next heartbeat does.
//
// # Online
//
// The machine is online if an interface other than the loopback is running, that is,
// administratively up and with a carrier, and if a running interface has a global
// unicast address. Private addresses count; loopback and link-local ones do not. The
// address may be on another interface, even on the loopback, as on hosts with
// unnumbered links.
//
// A default route is not required, since a private network may have none. In case of
// doubt the machine is online: a wrong "online" costs a failed attempt, a wrong
// "offline" costs the connection. Virtual interfaces count as well: a bridge with a
// running container keeps the host online even if its cable is unplugged.
//
// In a container only the container's own interfaces are visible. They tell whether
// the container is attached to a network, but nothing about the host's uplink.
//
// # Changes
//
// A change is an interface that starts or stops running, an address that is added or
// removed and, on Linux, a default route that is added or removed. Changes come in
// bursts: those within 100 ms of the first are reported once, after these 100 ms.
//
// On Linux the kernel reports changes over netlink at once, a lost carrier within a
// second. On other systems, or if netlink is not permitted, the watcher polls every
// 3 s. It also polls while the machine is offline, so that a lost notification cannot
// keep it offline.
//
// A process has one watcher for all clients. It needs a socket and two goroutines from
// the first subscription to the end of the last.
package netwatch
