// Package centrifuge has only tests. They run package resume against a server of the library
// centrifugal/centrifuge, which Centrifugo is made of: a client follows channels with recovery
// while its connection is cut, and each publication arrives once, or is in a gap. What the tests
// speak is Centrifugo's JSON protocol, and protocol_test.go is an example of how to read it.
package centrifuge
