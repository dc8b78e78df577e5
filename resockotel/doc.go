// Package resockotel tells OpenTelemetry what clients of resock do.
package resockotel
