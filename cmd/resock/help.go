package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
)

const rootHelp = `{{.Name}} - {{.Usage}}

Usage:
  resock [flags] URL
  resock serve [flags]      run a server to try clients with: resock serve -help
  resock completion SHELL   print the completion script of bash, zsh or fish

It prints what comes, one message a line, and sends what is typed or piped into
it, one line a message. Messages go to standard output, everything else to
standard error. When the connection is lost it connects again.

A DURATION is 500ms, 1m30s, or a number of seconds.
{{range .VisibleFlagCategories}}
{{if .Name}}{{.Name}}{{else}}Help{{end}}
{{range .Flags}}{{.}}
{{end}}{{end}}
Exit codes:
  0    done: -count or -request was served, the input ended (-exit-on-eof), or
       Ctrl-D
  1    could not connect, gave up (-attempts), or a line could not be sent
  2    wrong usage
  3    timed out: no message, or no answer, within -silence
  4    the output or the recording could not be written
  130  Ctrl-C; 143 is SIGTERM, 129 SIGHUP
`

const serveHelp = `{{.FullName}} - {{.Usage}}

Usage:
  resock serve [flags] [ADDRESS]

It prints the URL that it serves on standard output, and what happens on
standard error. Faults are set by -fault, for every connection; typed while it
runs, for all connections that there are; and sent by a client as a text message
that begins with "/", for its own connection:

{{.Description}}{{range .VisibleFlagCategories}}
{{if .Name}}{{.Name}}{{else}}Help{{end}}
{{range .Flags}}{{.}}
{{end}}{{end}}
Exit codes:
  0    ended by Ctrl-C or SIGTERM, with all connections closed
  1    could not listen, or the recording could not be read
  2    wrong usage
`

const (
	helpIndent = "        "
	helpWidth  = 80
)

// noDefault are the defaults that are not worth telling.
var noDefault = []string{"", `""`, "0", "0s", "[]"}

// flagHelp is what the help says of a flag, in the manner of package flag.
func flagHelp(f cli.Flag) string {
	flag, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	text, value := flag.GetUsage(), ""
	if before, rest, found := strings.Cut(text, "`"); found {
		if name, after, closed := strings.Cut(rest, "`"); closed {
			text, value = before+name+after, " "+name
		}
	}
	var short, long []string
	for _, name := range f.Names() {
		if len(name) == 1 {
			short = append(short, "-"+name)
		} else {
			long = append(long, "-"+name)
		}
	}
	if standard := cmp.Or(flag.GetDefaultText(), flag.GetValue()); flag.TakesValue() && !slices.Contains(noDefault, standard) {
		text += " (default " + standard + ")"
	}
	return "  " + strings.Join(append(short, long...), ", ") + value + "\n" + wrap(text)
}

// wrap breaks a text into lines that are indented.
func wrap(text string) string {
	lines := []string{helpIndent}
	for _, word := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == helpIndent:
			*last += word
		case len(*last)+1+len(word) > helpWidth:
			lines = append(lines, helpIndent+word)
		default:
			*last += " " + word
		}
	}
	return strings.Join(lines, "\n")
}
