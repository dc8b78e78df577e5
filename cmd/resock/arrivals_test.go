package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// TestArrivals checks that a line is in doubt until the server has answered for it.
func TestArrivals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := resocktest.NewMemory(t)
		client, err := resock.New(server.URL, resock.WithHTTPClient(server.Client()))
		if err != nil {
			t.Fatal(err)
		}
		go client.Run(t.Context())
		defer client.Close(resock.StatusNormalClosure, "")
		a := &arrivals{client: client}
		go a.confirm()
		send := func(session uint64, line int, want string) {
			t.Helper()
			if err := client.Send(t.Context(), resock.MessageText, []byte("line"), resock.WithSession(session)); err != nil {
				t.Fatal(err)
			}
			if doubt := a.took(session, line); doubt != want {
				t.Errorf("line %d: %q is in doubt, want %q", line, doubt, want)
			}
		}
		conn := server.Accept()
		synctest.Wait()
		send(1, 1, "")
		time.Sleep(time.Second) // the server answers
		conn.Drop()
		conn = server.Accept()
		conn.IgnorePings()
		synctest.Wait()
		send(2, 2, "")
		send(2, 3, "")
		time.Sleep(time.Second)
		conn.Drop()
		conn = server.Accept()
		synctest.Wait()
		send(3, 4, "lines 2 to 3")
		if doubt := a.lost(); doubt != "" {
			t.Errorf("%q is in doubt while the connection is open", doubt)
		}
		conn.Drop()
		synctest.Wait()
		if doubt := a.lost(); doubt != "line 4" {
			t.Errorf("%q is in doubt, want line 4", doubt)
		}
	})
}

// TestLinesInDoubt checks that lines which a lost connection took are told.
func TestLinesInDoubt(t *testing.T) {
	server := resocktest.NewServer(t)
	p := start(t, "-E", soon, server.URL)
	conn := server.Accept()
	conn.IgnorePings()
	p.enter("one", "two")
	read(t, conn)
	read(t, conn)
	conn.Drop()
	conn = server.Accept()
	p.enter("three")
	read(t, conn)
	_ = p.stdin.Close()
	p.exits(exitFailed)
	p.stderr.has(t, "resock: lines 1 to 2 may not have arrived: the connection was lost")
}
