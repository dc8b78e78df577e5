package resock

import "testing"

// CheckedEvents is grammar.Tee, for the tests inside of this package. They cannot
// import what imports the package: a test outside of it puts it here.
var CheckedEvents func(testing.TB, *Client, ...SubscribeOption) <-chan Event
