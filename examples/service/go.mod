module github.com/resock/resock/examples/service

go 1.25.0

require (
	github.com/coder/websocket v1.8.15
	github.com/resock/resock v0.0.0
	golang.org/x/sync v0.20.0
)

require github.com/cenkalti/backoff/v4 v4.3.0 // indirect

replace github.com/resock/resock => ../../
