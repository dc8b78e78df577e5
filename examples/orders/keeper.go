package main

import (
	"bufio"
	"io"
	"log"
	"os"
	"os/exec"
	"sync"
)

// keeper keeps a process running.
type keeper struct {
	name    string
	args    func() []string
	says    func(line string)
	process *exec.Cmd
	reading sync.WaitGroup
}

func (k *keeper) start() {
	k.process = exec.Command(os.Args[0], k.args()...)
	k.process.Env = append(os.Environ(), role+"="+k.name)
	k.process.Stderr = os.Stderr
	output, err := k.process.StdoutPipe()
	if err == nil {
		err = k.process.Start()
	}
	if err != nil {
		log.Fatal(err)
	}
	k.reading.Go(func() { k.read(output) })
}

func (k *keeper) read(output io.Reader) {
	for lines := bufio.NewScanner(output); lines.Scan(); {
		if k.says != nil {
			k.says(lines.Text())
		}
	}
}

// kill kills the process, as by SIGKILL, and starts another.
func (k *keeper) kill() {
	k.stop()
	say("%-9s was killed, and runs again", k.name)
	k.start()
}

func (k *keeper) stop() {
	_ = k.process.Process.Kill()
	k.reading.Wait()
	_ = k.process.Wait()
}

// wait waits for the process to end by itself.
func (k *keeper) wait() {
	k.reading.Wait()
	if err := k.process.Wait(); err != nil {
		log.Fatalf("the %s ended with %v", k.name, err)
	}
}
