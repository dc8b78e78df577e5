package netwatch

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// snapshot is what the network looks like. Two that differ are a change.
type snapshot struct {
	online bool
	what   string // running interfaces and global addresses
	routes uint64 // see hints
}

// look takes a snapshot of this machine.
func look() snapshot {
	interfaces, err := net.Interfaces()
	if err != nil || len(interfaces) == 0 {
		return snapshot{online: true} // not even a loopback: there is no telling
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return snapshot{online: true}
	}
	return snapshot{online: online(interfaces, addressesOf), what: describe(interfaces, addresses)}
}

func addressesOf(i net.Interface) ([]net.Addr, error) { return i.Addrs() }

// online reports whether a link runs and a global address is on a running
// interface. It asks for addresses only as long as it must: every question makes
// the kernel list them all.
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
			return true // or gone meanwhile, and then the next look tells
		}
	}
	return false
}

// running reports whether i is up and has a carrier.
func running(i net.Interface) bool {
	const both = net.FlagUp | net.FlagRunning
	return i.Flags&both == both
}

// link reports whether i runs and leads to other machines.
func link(i net.Interface) bool { return running(i) && i.Flags&net.FlagLoopback == 0 }

// global reports whether other machines can answer to address: private ones
// count, loopback and link-local ones do not.
func global(address net.Addr) bool {
	network, ok := address.(*net.IPNet)
	return ok && network.IP.IsGlobalUnicast()
}

// describe puts into words all that matters: equal words, no change.
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
