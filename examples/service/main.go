// Service shows a program as it runs in production: it takes reports by HTTP and passes them
// on over one connection, with a debug page and a shutdown on SIGTERM that loses nothing, here
// while the server of the connection is down. That server is part of the program.
//
//	go -C examples/service run .
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

// run runs the service until ctx ends, and tells the story beside it. It fails unless every
// report that was accepted has arrived, in order.
func run(ctx context.Context) error {
	server := startServer()
	defer func() { server.stop() }()
	service, err := newService("ws://" + server.address)
	if err != nil {
		return err
	}
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	story := &story{server: server, public: "http://" + public.Addr().String(), admin: "http://" + admin.Addr().String()}
	told := make(chan error, 1)
	go func() { told <- story.tell() }()
	if err := errors.Join(service.run(ctx, public, admin), <-told); err != nil {
		return err
	}
	received, _ := server.received()
	for i, report := range received {
		if report != fmt.Sprintf("report %d", i+1) {
			return fmt.Errorf("the server received %q", received)
		}
	}
	say("story", "%d reports were accepted, and the server received %d", story.accepted, len(received))
	if len(received) != story.accepted {
		return errors.New("not all reports arrived")
	}
	return nil
}

var began = time.Now()

// say prints one line: the time, who, and what.
func say(who, format string, args ...any) {
	fmt.Printf("%5.2fs  %-7s  %s\n", time.Since(began).Seconds(), who, fmt.Sprintf(format, args...))
}
