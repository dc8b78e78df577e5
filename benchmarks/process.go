package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// Arguments with which this program starts itself.
const (
	commandServer = "serve"
	commandSample = "sample"
)

// startServer starts the server process and returns its addresses. The process ends when
// stop is called, or with this one.
func startServer() (where addresses, stop func(), err error) {
	server := exec.Command(os.Args[0], commandServer)
	server.Stderr = os.Stderr
	in, err := server.StdinPipe()
	if err != nil {
		return where, nil, err
	}
	out, err := server.StdoutPipe()
	if err != nil {
		return where, nil, err
	}
	if err := server.Start(); err != nil {
		return where, nil, err
	}
	stop = func() {
		_ = in.Close()
		_ = server.Wait()
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &where)
	}
	if err != nil && err != io.EOF {
		stop()
	}
	return where, stop, err
}

// sampleInProcess takes one sample with program, in a new process, so that no sample
// depends on the heap, the pools or the scheduler state that another one left.
func sampleInProcess(program string, s spec) (sample, error) {
	asked, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	client := exec.Command(program, commandSample, string(asked))
	client.Stderr = os.Stderr
	out, err := client.Output()
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", s.Measure, s.Peer, err)
	}
	var result sample
	return result, json.Unmarshal(out, &result)
}
