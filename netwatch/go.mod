module github.com/resock/resock/netwatch

go 1.25.0

require (
	github.com/coder/websocket v1.8.15
	github.com/mdlayher/netlink v1.11.2
	github.com/resock/resock v0.0.0-00010101000000-000000000000
	golang.org/x/sys v0.43.0
)

require (
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/mdlayher/socket v0.6.0 // indirect
	golang.org/x/net v0.53.0 // indirect
	golang.org/x/sync v0.20.0 // indirect
)

replace github.com/resock/resock => ../
