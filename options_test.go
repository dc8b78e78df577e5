package resock

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/coder/websocket"
)

func TestNewRejectsBadURLs(t *testing.T) {
	for _, url := range []string{
		"", "example.com", "/path", "http://example.com", "https://example.com", "ftp://example.com",
		"ws://", "wss://:443", "ws://example.com/#fragment", "ws://exa mple.com", "://", "\x00",
	} {
		client, err := New(url)
		var option *OptionError
		if client != nil || !errors.As(err, &option) || option.Option != "New" || option.Reason == "" {
			t.Errorf("New(%q) = %v, %v, want an OptionError", url, client, err)
		}
	}
	_, err := New("http://user:secret@example.com/?token=secret")
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("the error of a bad URL contains a secret: %v", err)
	}
	for _, url := range []string{"ws://example.com", "wss://example.com:8443/a/b?c=d", "ws://[::1]:80/"} {
		if _, err := New(url); err != nil {
			t.Errorf("New(%q): %v", url, err)
		}
	}
}

func TestNewRejectsBadOptions(t *testing.T) {
	type opts = []Option
	for _, tt := range []struct {
		option string
		value  any
		opts   opts
	}{
		{"WithDialTimeout", time.Duration(0), opts{WithDialTimeout(0)}},
		{"WithDialTimeout", -time.Second, opts{WithDialTimeout(-time.Second)}},
		{"WithWriteTimeout", time.Duration(0), opts{WithWriteTimeout(0)}},
		{"WithCloseTimeout", -time.Second, opts{WithCloseTimeout(-time.Second)}},
		{"WithBackoff", time.Duration(0), opts{WithBackoff(0, time.Second)}},
		{"WithBackoff", time.Duration(0), opts{WithBackoff(time.Second, 0)}},
		{"WithBackoff", time.Second, opts{WithBackoff(time.Minute, time.Second)}},
		{"WithHeartbeat", -time.Second, opts{WithHeartbeat(-time.Second, time.Second)}},
		{"WithHeartbeat", -time.Second, opts{WithHeartbeat(time.Second, -time.Second)}},
		{"WithHeartbeat", time.Duration(0), opts{WithHeartbeat(time.Second, 0)}},
		{"WithHeartbeatMessage", nil, opts{WithHeartbeatMessage(nil)}},
		{"WithHeartbeatMessage", "func", opts{WithHeartbeat(0, 0), WithHeartbeatMessage(beat)}},
		{"WithIdleTimeout", -time.Second, opts{WithIdleTimeout(-time.Second)}},
		{"WithStableAfter", -time.Second, opts{WithStableAfter(-time.Second)}},
		{"WithMaxSessionAge", -time.Second, opts{WithMaxSessionAge(-time.Second)}},
		{"WithHandover", -time.Second, opts{WithHandover(-time.Second)}},
		{"WithHandover", 6 * time.Second, opts{WithHandover(6 * time.Second)}},
		{"WithMaxAttempts", int64(-1), opts{WithMaxAttempts(-1)}},
		{"WithReadLimit", int64(0), opts{WithReadLimit(0)}},
		{"WithReadLimit", int64(-1), opts{WithReadLimit(-1)}},
		{"WithReadLimit", int64(math.MaxInt64), opts{WithReadLimit(math.MaxInt64)}},
		{"WithQueue", int64(0), opts{WithQueue(0, 1)}},
		{"WithQueue", int64(-1), opts{WithQueue(1, -1)}},
		{"WithDialOptions", websocket.CompressionMode(9), opts{WithDialOptions(&websocket.DialOptions{CompressionMode: 9})}},
		{"WithBackoffPolicy", nil, opts{WithBackoffPolicy(nil)}},
		{"WithEndpoint", nil, opts{WithEndpoint(nil)}},
		{"WithOnOpen", nil, opts{WithOnOpen(nil)}},
		{"WithRetryPolicy", nil, opts{WithRetryPolicy(nil)}},
		{"WithDialLimiter", nil, opts{WithDialLimiter(nil)}},
		{"WithNetwork", nil, opts{WithNetwork(nil)}},
		{"WithMessageHandler", nil, opts{WithMessageHandler(nil)}},
		{"WithSendLimiter", nil, opts{WithSendLimiter(nil)}},
		{"WithFilter", nil, opts{WithFilter(nil), WithFilter(func(context.Context, MessageEvent) bool { return true })}},
		{"Option", nil, opts{nil}},
	} {
		client, err := New("ws://example.com", tt.opts...)
		var option *OptionError
		if client != nil || !errors.As(err, &option) {
			t.Errorf("%s(%v): %v, %v, want an OptionError", tt.option, tt.value, client, err)
			continue
		}
		if option.Option != tt.option || option.Value != tt.value {
			t.Errorf("%s(%v): the error names %s(%v), want the option and its value", tt.option, tt.value, option.Option, option.Value)
		}
		if text := err.Error(); !strings.Contains(text, tt.option) || !strings.Contains(text, fmt.Sprint(tt.value)) {
			t.Errorf("%s(%v): the text %q does not contain both", tt.option, tt.value, text)
		}
	}
}

func beat() (MessageType, []byte) { return MessageText, []byte("beat") }

func TestNewAcceptsZeros(t *testing.T) {
	client, err := New("ws://example.com",
		WithHeartbeat(-1, -1), // replaced by the last one
		WithHeartbeat(0, 0),
		WithEndpoint(nil),
		WithEndpoint(func(context.Context, Attempt) (Endpoint, error) { return Endpoint{}, nil }),
		WithIdleTimeout(0),
		WithMaxAttempts(0),
		WithStableAfter(0),
		WithMaxSessionAge(0),
		WithHandover(0),
		WithDialOptions(nil),
		WithLogger(nil),
		WithBackoffPolicy(func() backoff.BackOff { return &backoff.ZeroBackOff{} }),
	)
	if err != nil || client.State() != StateIdle {
		t.Errorf("New: got %v, %v, want an idle client", client, err)
	}
	if _, err := New("ws://example.com", WithHeartbeat(time.Second, 0), WithHeartbeatMessage(beat)); err != nil {
		t.Errorf("a heartbeat message without an answer: %v", err)
	}
}

func TestBadArguments(t *testing.T) {
	client, err := New("ws://example.com")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []StatusCode{-1, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000} {
		var option *OptionError
		if err := client.Close(code, ""); !errors.As(err, &option) || option.Value != int(code) {
			t.Errorf("Close(%d): %v, want an OptionError that names the code", code, err)
		}
	}
	if client.State() != StateIdle {
		t.Errorf("a rejected Close left the client %v, want idle", client.State())
	}
	for _, typ := range []MessageType{-1, 0, 3, 8, 9} {
		for name, err := range map[string]error{
			"Send":    client.Send(context.Background(), typ, nil),
			"Enqueue": client.Enqueue(typ, nil, WithResult(func(error) { t.Error("a rejected message has an outcome") })),
		} {
			var option *OptionError
			if !errors.Is(err, ErrNotSent) || !errors.As(err, &option) || option.Option != name || option.Value != int(typ) {
				t.Errorf("%s of type %d: got %v, want an OptionError for the type, and ErrNotSent", name, typ, err)
			}
		}
	}
	if err := client.Enqueue(MessageText, []byte("\xff")); !errors.Is(err, ErrNotSent) {
		t.Errorf("Enqueue of text that is not UTF-8: got %v, want ErrNotSent", err)
	}
	var option *OptionError
	if err := client.Enqueue(MessageText, nil, WithTTL(0)); !errors.As(err, &option) || option.Option != "WithTTL" {
		t.Errorf("Enqueue with a TTL of 0: got %v, want an OptionError for WithTTL", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := client.Send(ctx, MessageText, nil); !errors.Is(err, ErrNotSent) || !errors.Is(err, context.Canceled) {
		t.Errorf("Send with a canceled context: got %v, want ErrNotSent and Canceled", err)
	}
	if stats := client.Stats(); stats.Queued != 0 || stats.QueuedBytes != 0 {
		t.Errorf("got %+v, want no rejected message in the queue", stats)
	}
}

func TestRunRejectsAPolicyThatIsNil(t *testing.T) {
	client, err := New("ws://127.0.0.1:1", WithBackoffPolicy(func() backoff.BackOff { return nil }))
	if err != nil {
		t.Fatal(err)
	}
	var option *OptionError
	if err := client.Run(context.Background()); !errors.As(err, &option) || option.Option != "WithBackoffPolicy" {
		t.Errorf("Run: %v, want an OptionError", err)
	}
}

// everyOption is every Option. TestEveryOptionIsKnown fails if one is missing.
var everyOption = map[string]any{
	"WithBackoff":          WithBackoff,
	"WithBackoffPolicy":    WithBackoffPolicy,
	"WithCloseTimeout":     WithCloseTimeout,
	"WithCompression":      WithCompression,
	"WithDialLimiter":      WithDialLimiter,
	"WithDialOptions":      WithDialOptions,
	"WithDialTimeout":      WithDialTimeout,
	"WithEndpoint":         WithEndpoint,
	"WithFilter":           WithFilter,
	"WithHTTPClient":       WithHTTPClient,
	"WithHandover":         WithHandover,
	"WithHeader":           WithHeader,
	"WithHeartbeat":        WithHeartbeat,
	"WithHeartbeatMessage": WithHeartbeatMessage,
	"WithIdleTimeout":      WithIdleTimeout,
	"WithLogger":           WithLogger,
	"WithMaxAttempts":      WithMaxAttempts,
	"WithMaxSessionAge":    WithMaxSessionAge,
	"WithMessageHandler":   WithMessageHandler,
	"WithNetwork":          WithNetwork,
	"WithOnOpen":           WithOnOpen,
	"WithQueue":            WithQueue,
	"WithReadLimit":        WithReadLimit,
	"WithRetryPolicy":      WithRetryPolicy,
	"WithSendLimiter":      WithSendLimiter,
	"WithStableAfter":      WithStableAfter,
	"WithSubprotocols":     WithSubprotocols,
	"WithWriteTimeout":     WithWriteTimeout,
}

// nilIsDefault holds the options that accept nil.
var nilIsDefault = map[string]bool{"WithDialOptions": true, "WithHTTPClient": true, "WithHeader": true, "WithLogger": true}

// Every option is in everyOption and in the table of docs/options.md, and its doc comment states
// its default.
func TestEveryOptionIsKnown(t *testing.T) {
	docs, rows := optionDocs(t), optionRows(t)
	for name, doc := range docs {
		if everyOption[name] == nil {
			t.Errorf("%s is not in everyOption", name)
		}
		if !strings.HasPrefix(doc, name+" ") || !strings.Contains(doc, "Defaults to ") {
			t.Errorf("the doc comment of %s does not state its default: %q", name, doc)
		}
		if rows[name] == "" {
			t.Errorf("%s has no row with a default in docs/options.md", name)
		}
	}
	for name := range everyOption {
		if _, ok := docs[name]; !ok {
			t.Errorf("%s is in everyOption, but is no Option", name)
		}
	}
	for name := range rows {
		if _, ok := docs[name]; !ok {
			t.Errorf("%s is in docs/options.md, but is no Option", name)
		}
	}
}

// The numbers that an option defaults to are those in its doc comment and in docs/options.md.
func TestEveryDefaultIsDocumented(t *testing.T) {
	docs, rows := optionDocs(t), optionRows(t)
	for name, option := range everyOption {
		var told []string
		for i := range reflect.TypeOf(option).NumIn() {
			if isNumber(reflect.TypeOf(option).In(i)) {
				told = append(told, inWords(defaultOf(t, option, i)))
			}
		}
		if len(told) == 0 {
			continue
		}
		if want := strings.Join(told, ", "); rows[name] != want {
			t.Errorf("%s: docs/options.md tells the default %q, want %q", name, rows[name], want)
		}
		for _, number := range told {
			if number != "off" && !strings.Contains(docs[name], number) {
				t.Errorf("%s: the doc comment does not state the default %s: %q", name, number, docs[name])
			}
		}
	}
}

// docs/options.md lists exactly the options that zero disables: those whose first number may
// be zero.
func TestZeroDisables(t *testing.T) {
	document, err := os.ReadFile("docs/options.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(document), "\nZero disables ")
	list, _, _ = strings.Cut(list, ".")
	for name, option := range everyOption {
		typ := reflect.TypeOf(option)
		if !isNumber(typ.In(0)) || typ == reflect.TypeOf(WithCompression) {
			continue
		}
		args := usable(typ)
		args[0] = reflect.Zero(typ.In(0))
		disables := newError(makeOption(option, args)) == nil
		if listed := strings.Contains(list, "`"+name+"`"); listed != disables {
			t.Errorf("%s accepts zero: %t; docs/options.md says that zero disables it: %t", name, disables, listed)
		}
	}
}

// No option accepts a negative number or duration, nor nil unless that is its default.
func TestEveryOptionIsChecked(t *testing.T) {
	for name, option := range everyOption {
		typ := reflect.TypeOf(option)
		if err := newError(makeOption(option, usable(typ))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for i := range typ.NumIn() {
			args := usable(typ)
			switch {
			case isNumber(typ.In(i)):
				args[i] = reflect.ValueOf(-1).Convert(typ.In(i))
				err := newError(makeOption(option, args))
				if err == nil || err.Option != name || reflect.ValueOf(err.Value).Int() != -1 {
					t.Errorf("%s with -1 as argument %d: got %v, want an OptionError that names both", name, i, err)
				}
			case isNillable(typ.In(i)):
				args[i] = reflect.Zero(typ.In(i))
				checkNil(t, name, makeOption(option, args), makeOption(option, usable(typ)))
			}
		}
	}
}

// checkNil tests an option with nil, alone and together with a valid one.
func checkNil(t *testing.T, name string, isNil, works Option) {
	t.Helper()
	refused := func(opts ...Option) bool {
		err := newError(opts...)
		return err != nil && err.Option == name && err.Value == nil
	}
	if taken := nilIsDefault[name]; refused(isNil) == taken || refused(works, isNil) == taken {
		t.Errorf("%s with nil, alone and after a valid one: got %v and %v", name, newError(isNil), newError(works, isNil))
	}
	if wins := name != "WithFilter"; refused(isNil, works) == wins {
		t.Errorf("%s with nil, and then with a valid argument: got %v", name, newError(isNil, works))
	}
}

// If several options are nil, New names the first that no later one replaces.
func TestFirstNilOptionIsNamed(t *testing.T) {
	onOpen := makeOption(WithOnOpen, usable(reflect.TypeOf(WithOnOpen)))
	for _, tt := range []struct {
		want string
		opts []Option
	}{
		{"WithOnOpen", []Option{WithOnOpen(nil), WithNetwork(nil)}},
		{"WithNetwork", []Option{WithNetwork(nil), WithOnOpen(nil)}},
		{"WithNetwork", []Option{WithOnOpen(nil), WithNetwork(nil), onOpen}},
		{"WithFilter", []Option{WithDialTimeout(-1), onOpen, WithFilter(nil)}},
	} {
		if err := newError(tt.opts...); err == nil || err.Option != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

// Checking the options does not change them, and an option that was replaced is not
// checked.
func TestRulesChangeNothing(t *testing.T) {
	g := given{settings: defaults(), url: "ws://server.test"}
	for _, opt := range []Option{WithCompression(9), WithDialOptions(&websocket.DialOptions{CompressionMode: 8, Subprotocols: []string{"a", "b"}})} {
		opt.apply(&g)
	}
	before := g
	for range 2 {
		if fault := g.rules().fault(); fault == nil || fault.Option != "WithCompression" || fault.Value != websocket.CompressionMode(9) {
			t.Errorf("got %v, want a fault of WithCompression", fault)
		}
	}
	if !reflect.DeepEqual(g, before) {
		t.Errorf("%+v was changed to %+v, want no change", before, g)
	}
	WithCompression(websocket.CompressionDisabled).apply(&g)
	if fault := g.rules().fault(); fault != nil {
		t.Errorf("got %v, want no fault", fault)
	}
}

// newError returns why New rejects the options, or nil.
func newError(opts ...Option) (option *OptionError) {
	_, err := New("ws://server.test", opts...)
	errors.As(err, &option)
	return option
}

// makeOption calls an option function of everyOption.
func makeOption(option any, args []reflect.Value) Option {
	f := reflect.ValueOf(option)
	call := f.Call
	if f.Type().IsVariadic() {
		call = f.CallSlice
	}
	return call(args)[0].Interface().(Option)
}

func isNumber(typ reflect.Type) bool { return typ.Kind() == reflect.Int || typ.Kind() == reflect.Int64 }

// isNillable reports whether nil for this type is a mistake. An empty list is none.
func isNillable(typ reflect.Type) bool {
	kinds := []reflect.Kind{reflect.Func, reflect.Interface, reflect.Pointer, reflect.Map}
	return slices.Contains(kinds, typ.Kind())
}

// bystander implements every interface that an option accepts.
type bystander struct{}

func (bystander) Wait(context.Context) error { return nil }
func (bystander) Online() bool               { return true }
func (bystander) OnChange(func()) func()     { return func() {} }

// usable returns valid arguments for an option function of that type.
func usable(option reflect.Type) (args []reflect.Value) {
	for i := range option.NumIn() {
		args = append(args, usableArgument(option.In(i)))
	}
	return args
}

func usableArgument(typ reflect.Type) reflect.Value {
	if typ == reflect.TypeFor[*slog.Logger]() {
		return reflect.ValueOf(silence)
	}
	switch typ.Kind() {
	case reflect.Func:
		return reflect.MakeFunc(typ, func([]reflect.Value) (zeros []reflect.Value) {
			for i := range typ.NumOut() {
				zeros = append(zeros, reflect.Zero(typ.Out(i)))
			}
			return zeros
		})
	case reflect.Interface:
		return reflect.ValueOf(bystander{})
	case reflect.Pointer:
		return reflect.New(typ.Elem())
	case reflect.Map:
		return reflect.MakeMap(typ)
	case reflect.Slice:
		return reflect.MakeSlice(typ, 0, 0)
	default:
		return reflect.ValueOf(1).Convert(typ)
	}
}

// defaultOf returns the default of one argument of an option: the default of the field
// which only that argument sets.
func defaultOf(t *testing.T, option any, argument int) reflect.Value {
	t.Helper()
	const mark = 7
	var args []reflect.Value
	for i := range reflect.TypeOf(option).NumIn() {
		args = append(args, reflect.Zero(reflect.TypeOf(option).In(i)))
	}
	args[argument] = reflect.ValueOf(mark).Convert(args[argument].Type())
	var g given
	makeOption(option, args).apply(&g)
	set := numbers(reflect.ValueOf(g))
	i := slices.IndexFunc(set, func(v reflect.Value) bool { return v.Int() == mark })
	if i < 0 {
		t.Fatalf("%T sets no field of settings", option)
	}
	return numbers(reflect.ValueOf(given{settings: defaults()}))[i]
}

// numbers returns all numbers in v, in order.
func numbers(v reflect.Value) (all []reflect.Value) {
	if isNumber(v.Type()) {
		return []reflect.Value{v}
	}
	if v.Kind() == reflect.Struct {
		for i := range v.NumField() {
			all = append(all, numbers(v.Field(i))...)
		}
	}
	return all
}

// inWords returns a default as the documentation writes it.
func inWords(v reflect.Value) string {
	n := v.Int()
	switch {
	case n == 0:
		return "off"
	case v.Type() == reflect.TypeFor[time.Duration]() && n%int64(time.Second) == 0:
		return fmt.Sprintf("%d s", n/int64(time.Second))
	case v.Type() == reflect.TypeFor[time.Duration]():
		return fmt.Sprintf("%d ms", n/int64(time.Millisecond))
	case n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	default:
		return fmt.Sprint(n)
	}
}

// optionDocs returns the doc comment of every exported function that returns an
// Option, on one line.
func optionDocs(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	docs := make(map[string]string)
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range file.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && f.Name.IsExported() && returnsOption(f) {
				docs[f.Name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
			}
		}
	}
	return docs
}

func returnsOption(f *ast.FuncDecl) bool {
	if f.Recv != nil || f.Type.Results == nil || len(f.Type.Results.List) != 1 {
		return false
	}
	name, ok := f.Type.Results.List[0].Type.(*ast.Ident)
	return ok && name.Name == "Option"
}

// optionRows returns the default of every option in the table of docs/options.md.
func optionRows(t *testing.T) map[string]string {
	t.Helper()
	document, err := os.ReadFile("docs/options.md")
	if err != nil {
		t.Fatal(err)
	}
	section, _, _ := strings.Cut(string(document), "\n## ")
	rows := make(map[string]string)
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			continue
		}
		for _, name := range regexp.MustCompile("`(With[A-Za-z]+)`").FindAllStringSubmatch(cells[1], -1) {
			rows[name[1]] = strings.TrimSpace(cells[2])
		}
	}
	return rows
}

// New returns either an OptionError or a client that can be closed, whatever the options.
func FuzzOptions(f *testing.F) {
	f.Add("ws://server.test", []byte{})
	f.Add("wss://user:secret@server.test:1/path?token=1", []byte{0, 10, 1, 20, 2, 30})
	f.Add("http://server.test", []byte{255})
	f.Add("ws://[::1%25eth0]:x#fragment", []byte{7, 0})
	for i := range byte(len(everyOption) + 1) {
		f.Add("ws://server.test", []byte{i, 0, i, 3, i, 6})
		f.Add("ws://server.test", []byte{i, 1})
		f.Add("", []byte{i, 0x11, i, 0x33})
	}
	f.Fuzz(func(t *testing.T, url string, choices []byte) {
		var opts []Option
		for ; len(choices) >= 2; choices = choices[2:] {
			opts = append(opts, anyOption(choices[0], choices[1]))
		}
		client, err := New(url, opts...)
		var bad *OptionError
		switch {
		case err == nil && client == nil, err != nil && client != nil:
			t.Fatalf("got client %v and error %v, want exactly one of them", client, err)
		case err != nil:
			if !errors.As(err, &bad) || bad.Option == "" || bad.Reason == "" {
				t.Errorf("got %v, want an OptionError with an option and a reason", err)
			}
			return
		}
		_ = client.Stats()
		if err := client.Close(StatusNormalClosure, url); err != nil {
			t.Error(err)
		}
		<-client.Done()
	})
}

// anyOption returns the option of that number with arguments that may be invalid, or nil.
func anyOption(number, value byte) Option {
	names := append(slices.Sorted(maps.Keys(everyOption)), "none")
	option := everyOption[names[int(number)%len(names)]]
	if option == nil {
		return nil
	}
	var args []reflect.Value
	for i := range reflect.TypeOf(option).NumIn() {
		args = append(args, anyArgument(reflect.TypeOf(option).In(i), value))
		value = value>>4 | value<<4
	}
	return makeOption(option, args)
}

func anyArgument(typ reflect.Type, value byte) reflect.Value {
	n := []int64{0, 1, -1, 100, int64(time.Second), math.MaxInt64, math.MinInt64}[value%7]
	switch {
	case isNumber(typ):
		return reflect.ValueOf(n).Convert(typ)
	case isNillable(typ) && value%2 == 0:
		return reflect.Zero(typ)
	case typ == reflect.TypeFor[*websocket.DialOptions]():
		return reflect.ValueOf(&websocket.DialOptions{
			Subprotocols:         anyNames(value),
			CompressionMode:      websocket.CompressionMode(value % 5),
			CompressionThreshold: int(n),
		})
	case typ == reflect.TypeFor[[]string]():
		return reflect.ValueOf(anyNames(value))
	default:
		return usableArgument(typ)
	}
}

func anyNames(value byte) []string {
	return [][]string{nil, {"a", "b"}, {"a", "a"}, {""}, {"a b"}}[value%5]
}
