package netwatch

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// snapshot is the state of the network. Snapshots are compared to detect a change.
type snapshot struct {
	online bool
	what   string // running interfaces and global addresses
	routes uint64 // see hints
}

// look takes a snapshot of this machine.
func look() snapshot {
	interfaces, err := net.Interfaces()
	if err != nil || len(interfaces) == 0 {
		return snapshot{online: true} // no loopback, either: the system does not tell
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return snapshot{online: true}
	}
	return snapshot{online: online(interfaces, addressesOf), what: describe(interfaces, addresses)}
}

func addressesOf(i net.Interface) ([]net.Addr, error) { return i.Addrs() }

// online reports whether a link is running and a running interface has a global
// address. It stops at the first one, since for every call of addressesOf the kernel
// lists the addresses of all interfaces.
func online(interfaces []net.Interface, addressesOf func(net.Interface) ([]net.Addr, error)) bool {
	if !slices.ContainsFunc(interfaces, link) {
		return false
	}
	for _, i := range interfaces {
		if !running(i) {
			continue
		}
		addresses, err := addressesOf(i)
		if err != nil || slices.ContainsFunc(addresses, global) {
			return true // on an error i may be gone, which is another change
		}
	}
	return false
}

// running reports whether i is up and has a carrier.
func running(i net.Interface) bool {
	const both = net.FlagUp | net.FlagRunning
	return i.Flags&both == both
}

// link reports whether i is running and not the loopback.
func link(i net.Interface) bool { return running(i) && i.Flags&net.FlagLoopback == 0 }

// global reports whether address is a global unicast address. Private addresses count,
// loopback and link-local ones do not.
func global(address net.Addr) bool {
	network, ok := address.(*net.IPNet)
	return ok && network.IP.IsGlobalUnicast()
}

// describe lists the running links and global addresses in a comparable form.
func describe(interfaces []net.Interface, addresses []net.Addr) string {
	var words []string
	for _, i := range interfaces {
		if link(i) {
			words = append(words, fmt.Sprint(i.Index, i.Name))
		}
	}
	for _, address := range addresses {
		if global(address) {
			words = append(words, address.String())
		}
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}
