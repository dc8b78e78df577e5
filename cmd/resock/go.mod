module github.com/resock/resock/cmd/resock

go 1.25.0

require (
	github.com/creack/pty v1.1.24
	github.com/resock/resock v0.0.0
	golang.org/x/sys v0.44.0
	golang.org/x/term v0.43.0
)

require (
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	github.com/coder/websocket v1.8.15
	github.com/urfave/cli/v3 v3.14.0
)

replace github.com/resock/resock => ../../
