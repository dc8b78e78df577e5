package journal_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/resock/resock"
	"github.com/resock/resock/outbox/journal"
)

// A record is there until it is done, also for the next process.
func Example() {
	parent, err := os.MkdirTemp("", "journal")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(parent)
	folder := filepath.Join(parent, "outgoing")

	j, err := journal.Open(folder, journal.Config{})
	if err != nil {
		log.Fatal(err)
	}
	for _, id := range []string{"order-17", "order-18"} {
		if _, err := j.Put(context.Background(), id, resock.MessageText, []byte("buy")); err != nil {
			log.Fatal(err)
		}
	}
	if err := j.Done(1); err != nil {
		log.Fatal(err)
	}
	if err := j.Close(); err != nil {
		log.Fatal(err)
	}

	j, err = journal.Open(folder, journal.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer j.Close()
	record, ok, err := j.Next(0)
	fmt.Println(record.Number, record.ID, string(record.Data), ok, err)
	// Output: 2 order-18 buy true <nil>
}
