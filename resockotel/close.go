package resockotel

import (
	"slices"
	"strconv"

	"github.com/coder/websocket"

	"github.com/resock/resock"
)

// classes are what classOf returns.
var classes = []string{"1000", "1001", "1005", "1008", "1011", "1012", "1013", "1xxx", "3xxx", "4xxx", "other"}

// classOf bounds what a server can make of an attribute of metrics. The codes that tell
// something to whoever operates the client stand for themselves.
func classOf(code resock.StatusCode) string {
	if class := strconv.Itoa(int(code)); slices.Contains(classes, class) {
		return class
	}
	switch code / 1000 {
	case 1:
		return "1xxx"
	case 3:
		return "3xxx"
	case 4:
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
