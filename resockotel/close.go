package resockotel

import (
	"strconv"

	"github.com/coder/websocket"

	"github.com/resock/resock"
)

// classOf bounds what a server can make of an attribute of metrics.
func classOf(code resock.StatusCode) string {
	switch {
	case code >= 1000 && code <= 1015:
		return strconv.Itoa(int(code))
	case code >= 3000 && code <= 3999:
		return "3xxx"
	case code >= 4000 && code <= 4999:
		return "4xxx"
	}
	return "other"
}

// isError reports whether a close that the application did not ask for is an error. Only
// the application knows what codes from 3000 on mean, but a server seldom sends one when
// all is well.
func isError(code resock.StatusCode) bool {
	switch code {
	case resock.StatusNormalClosure, websocket.StatusNoStatusRcvd, resock.StatusGoingAway,
		resock.StatusServiceRestart, resock.StatusTryAgainLater:
		return false
	}
	return true
}
