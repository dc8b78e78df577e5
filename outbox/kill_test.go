package outbox_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/outbox"
	"github.com/resock/resock/outbox/journal"
	"github.com/resock/resock/resocktest"
)

var kills = flag.Int("resock.kills", 10, "how often TestKilledSender kills its process")

const variable = "RESOCK_TEST_OUTBOX" // the URL of the server, and the folder

// TestKilledSender kills a process in the middle of its traffic, again and again. The
// server gets all that Put accepted, in order, and again only what it had acknowledged
// shortly before a kill, or not at all.
func TestKilledSender(t *testing.T) {
	if where := os.Getenv(variable); where != "" {
		url, folder, _ := strings.Cut(where, " ")
		send(t, url, folder)
		return
	}
	k := &killer{t: t, counted: map[string]int{}, done: map[string]time.Time{}}
	server := resocktest.NewServer(t)
	server.Handle(k.serve)
	folder := filepath.Join(t.TempDir(), "outgoing")
	for range *kills {
		k.run(server.URL+" "+folder, time.Duration(100+rand.IntN(400))*time.Millisecond)
	}
	store, err := journal.Open(folder, journal.Config{})
	if err != nil {
		t.Fatal(err)
	}
	k.drain(server.URL, store)
	k.check()
}

// killer is the server, and what it and the process saw.
type killer struct {
	t *testing.T

	mu      sync.Mutex
	put     []string             // what Put accepted
	first   []string             // as it arrived first
	counted map[string]int       // how often it arrived
	done    map[string]time.Time // when the process was told so
	killed  time.Time            // the last process
	late    int                  // messages that came again long after they were done
}

func (k *killer) serve(conn *resocktest.Conn) {
	for {
		m, err := conn.Read()
		if err != nil {
			return
		}
		id := string(m.Data)
		k.mu.Lock()
		if k.counted[id]++; k.counted[id] == 1 {
			k.first = append(k.first, id)
		}
		if at, ok := k.done[id]; ok && k.killed.Sub(at) > time.Second {
			k.late++
		}
		k.mu.Unlock()
		time.AfterFunc(time.Duration(rand.IntN(20))*time.Millisecond, func() { _ = conn.Push("ok " + id) })
	}
}

// run runs a process, and kills it.
func (k *killer) run(where string, lives time.Duration) {
	k.t.Helper()
	process := exec.Command(os.Args[0], "-test.run", "^TestKilledSender$")
	process.Env = append(os.Environ(), variable+"="+where)
	output, err := process.StdoutPipe()
	if err != nil {
		k.t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		k.t.Fatal(err)
	}
	var kill *time.Timer
	for lines := bufio.NewScanner(output); lines.Scan(); {
		if kill == nil { // it has begun
			kill = time.AfterFunc(lives, func() { _ = process.Process.Kill() })
		}
		what, id, _ := strings.Cut(lines.Text(), " ")
		k.mu.Lock()
		switch what {
		case "put":
			k.put = append(k.put, id)
		case "done":
			k.done[id] = time.Now()
		default:
			k.t.Errorf("the process says %q", lines.Text())
		}
		k.mu.Unlock()
	}
	_ = process.Wait()
	k.mu.Lock()
	k.killed = time.Now()
	k.mu.Unlock()
}

// drain sends what the last process left.
func (k *killer) drain(url string, store outbox.Store) {
	box, client := start(k.t, url, store, nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for left := 1; left > 0; left = box.Stats().Messages {
		if err := box.Put(ctx, "last", resock.MessageText, []byte("last")); err != nil {
			k.t.Fatal(err)
		}
		if err := box.Flush(ctx); err != nil {
			k.t.Fatal(err)
		}
	}
	_ = client.Close(resock.StatusNormalClosure, "")
	<-client.Done()
	if err := box.Close(); err != nil {
		k.t.Error(err)
	}
}

func (k *killer) check() {
	k.mu.Lock()
	defer k.mu.Unlock()
	again := 0
	for _, n := range k.counted {
		again += n - 1
	}
	for _, id := range k.put {
		if k.counted[id] == 0 {
			k.t.Errorf("%s was put, and never arrived", id)
		}
	}
	order := slices.DeleteFunc(slices.Clone(k.first), func(id string) bool { return id == "last" })
	if !slices.IsSorted(order) {
		k.t.Error("the order is not that of Put")
	}
	if k.late > 0 {
		k.t.Errorf("%d came again more than a second after they were done", k.late)
	}
	k.t.Logf("%d kills: %d put, %d arrived, %d came again", *kills, len(k.put), len(k.first), again)
}

// start opens a box over a store, and a client.
func start(t *testing.T, url string, store outbox.Store, done func(outbox.Result)) (*outbox.Box, *resock.Client) {
	box, err := outbox.Open(outbox.Config{Store: store, Read: read, Done: done})
	if err != nil {
		t.Fatal(err)
	}
	client, err := resock.New(url, resock.WithFilter(box.Filter), resock.WithBackoff(time.Millisecond, 10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if err := box.Bind(client); err != nil {
		t.Fatal(err)
	}
	go client.Run(context.Background())
	return box, client
}

// send puts messages until the process is killed.
func send(t *testing.T, url, folder string) {
	store, err := journal.Open(folder, journal.Config{})
	if err != nil {
		t.Fatal(err)
	}
	box, _ := start(t, url, store, func(r outbox.Result) { fmt.Println("done", r.ID) })
	began := time.Now().UnixNano()
	for n := 0; ; n++ {
		id := fmt.Sprintf("%d-%08d", began, n)
		if err := box.Put(context.Background(), id, resock.MessageText, []byte(id)); err != nil {
			t.Fatal(err)
		}
		fmt.Println("put", id)
	}
}
