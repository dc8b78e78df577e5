package netwatch_test

import (
	"log"

	"github.com/resock/resock"
	"github.com/resock/resock/netwatch"
)

func ExampleDefault() {
	client, err := resock.New("wss://example.com/push", resock.WithNetwork(netwatch.Default()))
	if err != nil {
		log.Fatal(err)
	}
	_ = client // subscribe and run
}
