package interop

import (
	"context"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/resock/resock/debug"
)

var (
	screenshot      = flag.String("resock.screenshot", "", "write a picture of the page of package debug to this `file`")
	screenshotAfter = flag.Duration("resock.screenshot-after", 100*time.Second, "let the clients on the picture run for so long")
	screenshotOf    = flag.Int("resock.screenshot-clients", 20, "number of clients on the picture")
	screenshotWidth = flag.Int64("resock.screenshot-width", 1200, "width of the picture")
	screenshotHigh  = flag.Int64("resock.screenshot-height", 900, "height of the picture")
	screenshotColor = flag.String("resock.screenshot-color", "light", "light or dark")
	screenshotOpen  = flag.String("resock.screenshot-open", "", "show the details of the client of this name")
)

// browser returns the context of a tab of a headless Chromium, until the end of the test.
func browser(t *testing.T) context.Context {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.ExecPath(program(t, "chromium")))
	ctx, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(closeTab)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx) })
	do(t, ctx)
	return ctx
}

func do(t *testing.T, ctx context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

// evaluate returns the value of an expression in the page.
func evaluate[T any](t *testing.T, ctx context.Context, expression string, args ...any) T {
	t.Helper()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](fmt.Sprintf(expression, args...)))
	if err != nil {
		t.Fatalf("%s: %v", fmt.Sprintf(expression, args...), err)
	}
	return value
}

// await waits until an expression in the page is true.
func await(t *testing.T, ctx context.Context, expression string, args ...any) {
	t.Helper()
	expression = fmt.Sprintf(expression, args...)
	_, err := chromedp.Run(ctx, chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingTimeout(patience), chromedp.WithPollingInterval(20*time.Millisecond)))
	if err != nil {
		t.Fatalf("%s: %v; the page says: %s", expression, err, evaluate[string](t, ctx, `document.body.innerText`))
	}
}

// look sets the size of the window, and its colors.
func look(t *testing.T, ctx context.Context, width, height int64, color string) {
	t.Helper()
	do(t, ctx, chromedp.EmulateViewport(width, height))
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: color}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// served serves h until the end of the test, and returns its URL.
func served(t *testing.T, h *debug.Handler) string {
	server := httptest.NewServer(h)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// TestScreenshot makes the picture of the README; see CONTRIBUTING.
func TestScreenshot(t *testing.T) {
	if *screenshot == "" {
		t.Skip("no -resock.screenshot")
	}
	var h debug.Handler
	fleet(t, &h, *screenshotOf)
	time.Sleep(*screenshotAfter)
	ctx := browser(t)
	look(t, ctx, *screenshotWidth, *screenshotHigh, *screenshotColor)
	do(t, ctx, chromedp.Navigate(served(t, &h)))
	await(t, ctx, `rows.size === %d`, *screenshotOf)
	do(t, ctx, chromedp.Evaluate[chromedp.Void](`rangeSelect.value = "120"; rangeSelect.dispatchEvent(new Event("change"))`))
	if *screenshotOpen != "" {
		do(t, ctx, chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`rows.get(%q).toggle()`, *screenshotOpen)))
	}
	do(t, ctx, chromedp.Sleep(2500*time.Millisecond))
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(*screenshot, picture, 0o644); err != nil {
		t.Fatal(err)
	}
}
