package trials

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/coder/websocket"
	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
)

var loadClients = flag.Int("resock.clients", 200, "clients of TestManyClients; each takes a file descriptor here, and one of the server's process")

const (
	loadRounds   = 10
	loadMessages = 4 // per client and round: two while it is open, two while it is down
	loadPatience = 3 * time.Minute
)

// TestManyClients kills the server of many clients again and again. All of them must
// reconnect, each message must have exactly one outcome, and neither memory nor
// goroutines nor descriptors may pile up, from round to round or after all clients are
// closed.
func TestManyClients(t *testing.T) {
	const role = "RESOCK_TEST_SERVER"
	if address := os.Getenv(role); address != "" {
		serveProcess(t, address)
		return
	}
	clients := make([]weak.Pointer[resock.Client], *loadClients)
	spare(6 * len(clients)) // of a client that dials
	before := measure(anyUsage)
	t.Run("rounds", func(t *testing.T) { testManyClients(t, clients, role) })
	// Until the next dial, net/http holds on to some of the requests that waited for a
	// connection, and the runtime to stopped timers: about 150 bytes for each client.
	slack := uint64(2<<20 + len(clients)<<9)
	within := func(u usage) bool {
		return reachable(clients) == 0 && u.goroutines <= before.goroutines &&
			u.descriptors <= before.descriptors && u.memory <= before.memory+slack
	}
	after := measure(within)
	t.Logf("before: %v; after: %v", before, after)
	if !within(after) {
		t.Errorf("before: %v; after: %v, with %d clients reachable, want no more than before", before, after, reachable(clients))
	}
}

// usage is what the process uses of the system's resources.
type usage struct {
	goroutines, descriptors int
	memory                  uint64 // heap and stacks
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %d KiB", u.goroutines, u.descriptors, u.memory>>10)
}

func anyUsage(usage) bool { return true }

// measure returns the usage once it is as wanted, or after a while.
func measure(wanted func(usage) bool) (u usage) {
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(50 * time.Millisecond) {
		runtime.GC()
		runtime.GC() // the second collection empties the pools
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		u.goroutines, u.descriptors = rig.Resources()
		u.memory = stats.HeapAlloc + stats.StackInuse
		if wanted(u) || time.Now().After(deadline) {
			return u
		}
	}
}

// reachable returns how many clients have not been garbage collected.
func reachable(clients []weak.Pointer[resock.Client]) (n int) {
	for _, c := range clients {
		if c.Value() != nil {
			n++
		}
	}
	return n
}

// spare starts n goroutines and ends them. The runtime keeps their descriptors for later
// goroutines, so these do not count as growth.
func spare(n int) {
	var tasks sync.WaitGroup
	end := make(chan struct{})
	for range n {
		tasks.Go(func() { <-end })
	}
	close(end)
	tasks.Wait()
}

// result counts the outcomes that the application was told for a message.
type result = int32

const (
	resultSent result = 1 << (8 * iota) // one byte per kind of outcome
	resultMaybe
	resultNotSent
	resultWrong
)

// fleet holds the clients of TestManyClients, and what became of their messages.
type fleet struct {
	clients  []*resock.Client
	opened   chan struct{}
	lost     chan struct{}
	ended    chan error
	received []atomic.Int32 // by a server
	results  []atomic.Int32
	accepted int

	running sync.WaitGroup // Run and watch of each client
}

func testManyClients(t *testing.T, clients []weak.Pointer[resock.Client], role string) {
	n := len(clients)
	total := n * loadRounds * loadMessages
	fl := &fleet{
		opened:   make(chan struct{}, n),
		lost:     make(chan struct{}, n),
		ended:    make(chan error, 2*n),
		received: make([]atomic.Int32, total),
		results:  make([]atomic.Int32, total),
	}
	server := &serverProcess{role: role, address: rig.UnusedAddress(t), received: fl.received}
	server.start(t)
	fl.launch(t, clients, server.address)

	started := time.Now()
	collect(t, fl.opened, n, "clients opened")
	took := time.Since(started)
	first := measure(anyUsage)
	t.Logf("%d clients opened in %v: %v", n, took.Round(time.Millisecond), first)
	// The stacks of a client's reader and of its consumer may each grow once, from 2 to
	// 4 KiB, in any round.
	stacks := uint64(n) * 4 << 10
	within := func(u usage) bool {
		return u.goroutines <= first.goroutines && u.descriptors <= first.descriptors &&
			u.memory <= first.memory+first.memory/10+1<<20+stacks
	}
	for round := range loadRounds {
		fl.enqueue(t, round, 0, 0, n/2)
		server.kill(t)
		fl.enqueue(t, round, 0, n/2, n)
		server.wait(t)
		collect(t, fl.lost, n, "clients lost session %d", round+1)
		fl.enqueue(t, round, 1, 0, n)
		server.start(t)
		started := time.Now()
		collect(t, fl.opened, n, "clients came back in round %d", round)
		took := time.Since(started)
		u := measure(within)
		t.Logf("round %d: %d clients came back in %v: %v", round, n, took.Round(time.Millisecond), u)
		if !within(u) {
			t.Errorf("with all clients open: %v in round %d, want no more than %v at first", u, round, first)
		}
	}

	fl.close(t)
	server.kill(t)
	server.wait(t)
	fl.check(t)
}

// launch starts the clients, and fills in the slice.
func (fl *fleet) launch(t *testing.T, clients []weak.Pointer[resock.Client], address string) {
	maximum := max(20*time.Millisecond, time.Duration(len(clients))*200*time.Microsecond)
	for i := range clients {
		c, err := resock.New("ws://"+address,
			resock.WithBackoff(time.Millisecond, maximum),
			resock.WithDialTimeout(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		clients[i] = weak.Make(c)
		fl.clients = append(fl.clients, c)
		events := c.Subscribe(context.Background())
		fl.running.Go(func() { fl.ended <- fl.watch(events) })
		fl.running.Go(func() {
			if err := c.Run(context.Background()); err != nil {
				fl.ended <- err
			}
		})
	}
}

// close closes the clients, and checks how they end.
func (fl *fleet) close(t *testing.T) {
	for _, c := range fl.clients {
		if opens := c.Stats().Opens; opens != loadRounds+1 {
			t.Errorf("a client opened %d sessions, want one per round and the first", opens)
		}
		if err := c.Close(resock.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
	}
	fl.running.Wait()
	close(fl.ended)
	for err := range fl.ended {
		if err != nil {
			t.Error(err)
		}
	}
}

// collect receives n tokens.
func collect(t *testing.T, tokens <-chan struct{}, n int, format string, args ...any) {
	t.Helper()
	timeout := time.After(loadPatience)
	for i := range n {
		select {
		case <-tokens:
		case <-timeout:
			t.Fatalf("only %d of %d %s", i, n, fmt.Sprintf(format, args...))
		}
	}
}

// watch reads the events of one client to their end.
func (fl *fleet) watch(events <-chan resock.Event) error {
	var checker grammar.Checker
	for event := range events {
		if err := checker.Event(event); err != nil {
			return err
		}
		switch e := event.(type) {
		case resock.OpenEvent:
			fl.opened <- struct{}{}
		case resock.FailEvent:
			if e.Session != 0 {
				fl.lost <- struct{}{}
			}
		}
	}
	return checker.End()
}

// enqueue enqueues half of a round's messages, of the clients from up to to.
func (fl *fleet) enqueue(t *testing.T, round, half, from, to int) {
	t.Helper()
	const each = loadMessages / 2
	for i := from; i < to; i++ {
		for j := range each {
			id := fl.message(i, round, half*each+j)
			err := fl.clients[i].Enqueue(resock.MessageBinary, binary.BigEndian.AppendUint64(nil, uint64(id)),
				resock.WithResult(func(err error) { fl.results[id].Add(resultOf(err)) }))
			if err != nil {
				t.Fatal(err)
			}
			fl.accepted++
		}
	}
}

// message returns the number of a message, which identifies it.
func (fl *fleet) message(client, round, n int) int {
	return (round*len(fl.clients)+client)*loadMessages + n
}

func resultOf(err error) result {
	switch {
	case err == nil:
		return resultSent
	case errors.Is(err, resock.ErrMaybeSent):
		return resultMaybe
	case errors.Is(err, resock.ErrNotSent):
		return resultNotSent
	}
	return resultWrong
}

// check compares what the clients were told with what the servers received.
func (fl *fleet) check(t *testing.T) {
	t.Helper()
	count := map[result]int{}
	received := 0
	for id := range fl.accepted {
		got := fl.received[id].Load()
		result := fl.results[id].Load()
		count[result]++
		received += int(got)
		switch {
		case result != resultSent && result != resultMaybe && result != resultNotSent:
			t.Errorf("message %d has the outcomes %#x, want exactly one", id, result)
		case got > 1:
			t.Errorf("message %d was received %d times, want at most once", id, got)
		case got > 0 && result == resultNotSent:
			t.Errorf("message %d was received, but its outcome is ErrNotSent", id)
		}
	}
	// The last messages went out in the last session, which was closed cleanly.
	for i := range fl.clients {
		for n := loadMessages / 2; n < loadMessages; n++ {
			id := fl.message(i, loadRounds-1, n)
			if fl.results[id].Load() != resultSent || fl.received[id].Load() != 1 {
				t.Errorf("message %d was received %d times, outcomes %#x, want once, sent", id, fl.received[id].Load(), fl.results[id].Load())
			}
		}
	}
	t.Logf("%d messages: %d sent, %d perhaps sent, %d not sent; %d received",
		fl.accepted, count[resultSent], count[resultMaybe], count[resultNotSent], received)
}

// serverProcess is a server in a process of its own. It reports the messages that it
// receives, as numbers of 8 bytes, on its standard output.
type serverProcess struct {
	role     string // the environment variable that turns the test binary into the server
	address  string
	received []atomic.Int32

	command *exec.Cmd
	told    chan error
}

// ready is the number that a server reports first.
const ready = math.MaxUint64

// start starts the process, and returns when the server listens.
func (p *serverProcess) start(t *testing.T) {
	t.Helper()
	p.command = exec.Command(os.Args[0], "-test.run=^TestManyClients$")
	p.command.Env = append(os.Environ(), p.role+"="+p.address)
	p.command.Stderr = os.Stderr
	if _, err := p.command.StdinPipe(); err != nil { // closed when this process ends
		t.Fatal(err)
	}
	stdout, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	p.told = make(chan error, 1)
	numbers := bufio.NewReader(stdout)
	if n, err := readNumber(numbers); err != nil || n != ready {
		t.Fatalf("the server reported %d, %v, want that it is ready", n, err)
	}
	go func() { p.told <- p.listen(numbers) }()
}

// listen counts the messages that the process reports, until it ends.
func (p *serverProcess) listen(numbers io.Reader) error {
	for {
		n, err := readNumber(numbers)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case n >= uint64(len(p.received)):
			return fmt.Errorf("the server received message %d", n)
		}
		p.received[n].Add(1)
	}
}

func readNumber(r io.Reader) (uint64, error) {
	var b [8]byte
	_, err := io.ReadFull(r, b[:])
	return binary.BigEndian.Uint64(b[:]), err
}

// kill kills the process, as the system does when memory runs out. The process has no
// chance to clean up.
func (p *serverProcess) kill(t *testing.T) {
	t.Helper()
	if err := p.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
}

// wait waits until the process has ended and all its reports are read.
func (p *serverProcess) wait(t *testing.T) {
	t.Helper()
	if err := <-p.told; err != nil {
		t.Error(err)
	}
	_ = p.command.Wait() // it was killed
}

// serveProcess is the main function of that process.
func serveProcess(t *testing.T, address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	tell := func(number []byte) {
		if _, err := os.Stdout.Write(number); err != nil {
			os.Exit(1)
		}
	}
	tell(binary.BigEndian.AppendUint64(nil, ready))
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test has ended
		os.Exit(1)
	}()
	err = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow() //nolint:errcheck // it is over
		for {
			_, data, err := conn.Read(context.Background())
			if err != nil {
				return
			}
			tell(data)
		}
	}))
	t.Fatal(err)
}
