package health_test

import (
	"log"
	"net/http"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/health"
)

// A program that answers from what it receives: it rides out a restart of the server, and
// is not ready when the feed falls silent for a minute.
func ExampleReadiness() {
	client, err := resock.New("wss://example.com/push")
	if err != nil {
		log.Fatal(err)
	}
	var ready health.Readiness
	remove, err := ready.Add("prices", client, health.WithGrace(30*time.Second), health.WithFreshness(time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	defer remove()
	http.Handle("/readyz", &ready)
}
