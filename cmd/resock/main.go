// Resock talks to a WebSocket server and stays connected. "resock serve" is a server to
// try clients with. See README.md, and resock -help.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

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
		fmt.Fprintln(os.Stderr, "resock:", strings.TrimPrefix(text, "resock: "))
	}
	if exit := (*exitError)(nil); errors.As(err, &exit) {
		return exit.code
	}
	return exitUsage
}

var unknownFlag = regexp.MustCompile(`^(flag provided but not defined: -+[A-Za-z-]*).*`)

// withoutValue is the text of an error of usage without what stands behind the name of an
// unknown flag: it may be a secret, as in "-HAuthorization: …".
func withoutValue(text string) string { return unknownFlag.ReplaceAllString(text, "$1") }

func rootCommand() *cli.Command {
	cli.FlagStringer = flagHelp
	set := new(settings)
	return &cli.Command{
		Name:                          "resock",
		Usage:                         "a WebSocket client that stays connected",
		ArgsUsage:                     "URL",
		CustomRootCommandHelpTemplate: rootHelp,
		Version:                       version(),
		EnableShellCompletion:         true,
		DisableSliceFlagSeparator:     true,
		HideHelpCommand:               true,
		ConfigureShellCompletionCommand: func(c *cli.Command) {
			c.Hidden = false
			c.Usage = "print the completion script of bash, zsh, fish or pwsh"
		},
		ExitErrHandler: func(context.Context, *cli.Command, error) {}, // run tells it
		OnUsageError: func(_ context.Context, _ *cli.Command, err error, _ bool) error {
			return usage(fmt.Errorf("%s; see resock -help", withoutValue(err.Error())))
		},
		Flags:    set.flags(),
		Action:   set.connect,
		Commands: []*cli.Command{serveCommand()},
	}
}
