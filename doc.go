// Package resock is a WebSocket client that stays connected.
package resock
