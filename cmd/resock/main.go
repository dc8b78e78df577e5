// Resock talks to a WebSocket server and stays connected. "resock serve" is a server to
// try clients with. See README.md, and resock -help.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v3"
)

func main() { os.Exit(run(context.Background(), os.Args)) }

// run runs the program and returns its exit code.
func run(ctx context.Context, args []string) int {
	err := rootCommand().Run(ctx, args)
	if err == nil {
		return exitDone
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(os.Stderr, "resock:", text)
	}
	if exit := (*exitError)(nil); errors.As(err, &exit) {
		return exit.code
	}
	return exitUsage
}

func rootCommand() *cli.Command {
	return &cli.Command{
		Name:                      "resock",
		Usage:                     "a WebSocket client that stays connected",
		ArgsUsage:                 "URL",
		EnableShellCompletion:     true,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(context.Context, *cli.Command, error) {}, // run tells it
		Flags:                     connectFlags(),
		Action:                    connect,
		Commands:                  []*cli.Command{serveCommand()},
	}
}
