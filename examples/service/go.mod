module github.com/resock/resock/examples/service

go 1.25.0

require (
	github.com/coder/websocket v1.8.15
	github.com/prometheus/client_golang v1.24.1
	github.com/resock/resock v0.0.0
	golang.org/x/sync v0.21.0
)

require (
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/prometheus/client_model v0.6.2 // indirect
	github.com/prometheus/common v0.70.1 // indirect
	github.com/prometheus/procfs v0.21.1 // indirect
	golang.org/x/sys v0.47.0 // indirect
	google.golang.org/protobuf v1.36.11 // indirect
)

require (
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	github.com/resock/resock/resockprom v0.0.0
)

replace github.com/resock/resock => ../../

replace github.com/resock/resock/resockprom => ../../resockprom
