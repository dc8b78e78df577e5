package resockotel

import (
	"github.com/coder/websocket"

	"github.com/resock/resock"
)

// The classes of close codes: few, since a server may send any of 2,000 codes of its own.
const (
	classNormal      = "normal"      // 1000, and 1005: without a code
	classGoingAway   = "going_away"  // 1001
	classRestart     = "restart"     // 1012 and 1013
	classError       = "error"       // the others below 3000
	classApplication = "application" // from 3000 on
)

func classOf(code resock.StatusCode) string {
	switch {
	case code == resock.StatusNormalClosure, code == websocket.StatusNoStatusRcvd:
		return classNormal
	case code == resock.StatusGoingAway:
		return classGoingAway
	case code == resock.StatusServiceRestart, code == resock.StatusTryAgainLater:
		return classRestart
	case code < 3000:
		return classError
	}
	return classApplication
}

// isError reports whether a close that the application did not ask for is an error. What
// codes from 3000 on mean only the application knows, but a server seldom sends one for joy.
func isError(code resock.StatusCode) bool {
	switch classOf(code) {
	case classNormal, classGoingAway, classRestart:
		return false
	}
	return true
}
