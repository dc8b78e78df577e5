// Package resocktest is a scripted WebSocket server for testing how a client
// reconnects.
package resocktest
