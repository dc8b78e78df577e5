package main

import "github.com/urfave/cli/v3"

// serveCommand is "resock serve".
func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run an echo and push server with faults on demand",
	}
}
