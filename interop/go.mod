module github.com/resock/resock/interop

go 1.25

require (
	github.com/coder/websocket v1.8.15
	github.com/resock/resock v0.0.0
	golang.org/x/time v0.12.0
)

require github.com/cenkalti/backoff/v4 v4.3.0 // indirect

replace github.com/resock/resock => ../
