package main

import (
	"errors"
	"math"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
)

// durationFlag is a flag of a duration: 1m30s, 500ms, or a number of seconds as curl and
// websocat take it.
type durationFlag = cli.FlagBase[time.Duration, cli.NoConfig, durationValue]

type durationValue struct{ to *time.Duration }

func (durationValue) Create(value time.Duration, to *time.Duration, _ cli.NoConfig) cli.Value {
	*to = value
	return durationValue{to}
}

func (durationValue) ToString(d time.Duration) string { return d.String() }

func (v durationValue) Set(text string) error {
	d, err := parseDuration(text)
	if err == nil {
		*v.to = d
	}
	return err
}

func (v durationValue) Get() any { return *v.to }

func (v durationValue) String() string {
	if v.to == nil {
		return ""
	}
	return v.to.String()
}

func parseDuration(text string) (time.Duration, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return d, nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || math.Abs(seconds) > math.MaxInt64/float64(time.Second) || math.IsNaN(seconds) {
		return 0, errors.New("a duration is wanted, such as 500ms, 1m30s, or 30 for seconds")
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// sizeFlag is a flag of a number of bytes: 65536, 64k, 10M, 1G.
type sizeFlag = cli.FlagBase[int64, cli.NoConfig, sizeValue]

type sizeValue struct{ to *int64 }

func (sizeValue) Create(value int64, to *int64, _ cli.NoConfig) cli.Value {
	*to = value
	return sizeValue{to}
}

func (sizeValue) ToString(n int64) string { return strconv.FormatInt(n, 10) }

func (v sizeValue) Set(text string) error {
	n, err := parseSize(text)
	if err == nil {
		*v.to = n
	}
	return err
}

func (v sizeValue) Get() any { return *v.to }

func (v sizeValue) String() string {
	if v.to == nil {
		return ""
	}
	return strconv.FormatInt(*v.to, 10)
}

func parseSize(text string) (int64, error) {
	digits := strings.TrimRight(text, "kKMG")
	shift, known := map[string]int{"": 0, "k": 10, "K": 10, "M": 20, "G": 30}[text[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !known || n > math.MaxInt64>>shift || n < 0 {
		return 0, errors.New("a number of bytes is wanted, such as 65536, 64k, 10M or 1G")
	}
	return n << shift, nil
}

// version is that of the module, as the go command knows it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
