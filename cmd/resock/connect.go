package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/resock/resock"
)

// connectFlags are the flags of "resock URL".
func connectFlags() []cli.Flag { return nil }

// connect is "resock URL".
func connect(ctx context.Context, cmd *cli.Command) error {
	if cmd.NArg() != 1 {
		return &exitError{exitUsage, errNoURL}
	}
	client, err := resock.New(cmd.Args().First())
	if err != nil {
		return &exitError{exitUsage, err}
	}
	return client.Run(ctx)
}
