package interop

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"image/png"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/resock/resock"
	"github.com/resock/resock/debug"
	"github.com/resock/resock/resocktest"
)

var (
	screenshot      = flag.String("resock.screenshot", "", "write a picture of the page of package debug to this `file`")
	screenshotAfter = flag.Duration("resock.screenshot-after", 130*time.Second, "let the clients on the picture run for so long")
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

// await waits until an expression in the page is true. While a page is being replaced there
// is nothing to evaluate it in, which counts as false.
func await(t *testing.T, ctx context.Context, expression string, args ...any) {
	t.Helper()
	expression = fmt.Sprintf(expression, args...)
	var is bool
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(pollEvery) {
		if is, err = chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")")); is {
			return
		}
	}
	t.Fatalf("not true: %s (%v); the page says: %s", expression, err, evaluate[string](t, ctx, `document.body.innerText`))
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
func served(t *testing.T, h http.Handler) string {
	server := httptest.NewServer(h)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// TestScreenshot makes the picture of the README, if it is asked to; see CONTRIBUTING.
func TestScreenshot(t *testing.T) {
	var h debug.Handler
	fleet(t, &h, *screenshotOf)
	if *screenshot != "" {
		<-time.After(*screenshotAfter)
	}
	ctx := browser(t)
	look(t, ctx, *screenshotWidth, *screenshotHigh, *screenshotColor)
	do(t, ctx, chromedp.Navigate(served(t, &h)))
	await(t, ctx, `rows.size === %d`, *screenshotOf)
	do(t, ctx, chromedp.Evaluate[chromedp.Void](`rangeSelect.value = "120"; rangeSelect.dispatchEvent(new Event("change"))`))
	if *screenshotOpen != "" {
		do(t, ctx, chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`rows.get(%q).toggle()`, *screenshotOpen)))
	}
	await(t, ctx, `document.querySelectorAll(".timeline rect").length > 0`)
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(picture)); err != nil {
		t.Fatal(err)
	}
	if *screenshot == "" {
		return
	}
	if err := os.WriteFile(*screenshot, picture, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestPageShowsADrop looks at a drop and a recovery as they happen.
func TestPageShowsADrop(t *testing.T) {
	ctx := browser(t)
	var h debug.Handler
	server := resocktest.NewServer(t)
	server.Script(resocktest.Echo(), resocktest.Status(503, http.Header{"Retry-After": {"3"}}, "busy"), resocktest.Echo())
	client := run(t, server.URL+"/feed")
	remove, err := h.Add("feed", client.Client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	conn := server.Accept()
	do(t, ctx, chromedp.Navigate(served(t, &h)+"/some/where/"))
	do(t, ctx, chromedp.Evaluate[chromedp.Void](`window.stays = true`))
	state := `document.querySelector(".client .state b")?.textContent`
	note := `document.querySelector(".client .note").textContent`
	await(t, ctx, state+` === "open"`)
	await(t, ctx, `document.querySelectorAll(".timeline rect.open").length === 1`)

	conn.Drop()
	await(t, ctx, state+` === "waiting"`)
	await(t, ctx, note+`.includes("503 Service Unavailable")`)
	await(t, ctx, note+`.startsWith("next attempt in 2 s")`) // it counts down from 3 s
	await(t, ctx, note+`.startsWith("next attempt in 1 s")`)
	await(t, ctx, state+` === "open"`)
	await(t, ctx, `document.querySelectorAll(".timeline rect.open").length === 2`)
	do(t, ctx, chromedp.Evaluate[chromedp.Void](`document.querySelector(".name button").click()`))
	await(t, ctx, `document.querySelector(".more")?.innerText.includes("session 1")`)
	if text := evaluate[string](t, ctx, `document.querySelector(".more").innerText`); !strings.Contains(text, "rule: status") || !strings.Contains(text, "read: ") {
		t.Errorf("the details:\n%s", text)
	}
	const hover = `(() => {
		rangeSelect.value = "120";
		rangeSelect.dispatchEvent(new Event("change"));
		const row = rows.get("feed"), box = row.at.timeline.getBoundingClientRect();
		const outage = row.spans.findLast((s) => s.state === "waiting");
		const x = box.right - box.width * (now() - (outage.start + outage.end) / 2) / range;
		row.at.timeline.dispatchEvent(new PointerEvent("pointermove", {clientX: x, clientY: box.top + 5, bubbles: true}));
		return tip.hidden ? "hidden" : tip.textContent;
	})()`
	if text := evaluate[string](t, ctx, hover); !strings.HasPrefix(text, "waiting, 3") || !strings.Contains(text, " to ") {
		t.Errorf("the tip: %s", text)
	}
	if !evaluate[bool](t, ctx, `window.stays === true`) {
		t.Error("the page was loaded again")
	}
}

// TestPageLosesItsServer ends the server of the page, and starts it again.
func TestPageLosesItsServer(t *testing.T) {
	ctx := browser(t)
	var h debug.Handler
	remove, err := h.Add("feed", newClient(t, "ws://localhost"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	listener := address(t)
	serve := func() *http.Server {
		l, err := net.Listen("tcp", listener)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: &h}
		go server.Serve(l) //nolint:errcheck // it is closed
		t.Cleanup(func() { server.Close() })
		return server
	}
	first := serve()
	do(t, ctx, chromedp.Navigate("http://"+listener))
	status := `document.querySelector("#status").textContent`
	await(t, ctx, status+` === "live"`)
	first.Close()
	await(t, ctx, status+`.startsWith("The stream is lost: this is as it was at ")`)
	serve()
	await(t, ctx, status+` === "live" && !document.body.classList.contains("lost")`)
}

// TestPageWithoutAStream finds all streams taken.
func TestPageWithoutAStream(t *testing.T) {
	ctx := browser(t)
	var h debug.Handler
	remove, err := h.Add("feed", newClient(t, "ws://localhost"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	url := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("events") {
			http.Error(w, "there are 32 streams already", http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(w, r)
	}))
	do(t, ctx, chromedp.Navigate(url))
	await(t, ctx, `document.querySelector("#status").textContent.startsWith("not live")`)
	await(t, ctx, `document.querySelector(".client .state b")?.textContent === "idle"`)
}

// TestPageWithoutScripts has a browser that runs none.
func TestPageWithoutScripts(t *testing.T) {
	ctx := browser(t)
	var h debug.Handler
	fleet(t, &h, 20)
	look(t, ctx, 1000, 600, "light")
	disabled := emulation.SetScriptExecutionDisabledParams{Value: true}
	if _, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, disabled); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	do(t, ctx, chromedp.Navigate(served(t, &h)))
	box, err := chromedp.Run(ctx, chromedp.Dimensions("noscript table", chromedp.NodeReady)) // of what is shown
	if err != nil {
		t.Fatal(err)
	}
	if box.Width < 500 || box.Height < 20*15 {
		t.Errorf("the table has %d x %d px", box.Width, box.Height)
	}
}

// TestPageShowsHostileText looks for what names and close reasons might do.
func TestPageShowsHostileText(t *testing.T) {
	ctx := browser(t)
	var h debug.Handler
	const hostile = `</script><img src=x onerror="window.harmed=1"><b>bold</b>`
	server := resocktest.NewServer(t)
	client := run(t, server.URL, resock.WithRetryPolicy(func(resock.Failure) resock.Decision {
		return resock.Decision{After: time.Minute, Rule: hostile}
	}))
	for _, name := range []string{hostile, "__proto__", "\u202egnp.exe"} {
		remove, err := h.Add(name, client.Client)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(remove)
	}
	_ = server.Accept().Close(resock.StatusGoingAway, hostile)
	do(t, ctx, chromedp.Navigate(served(t, &h)))
	await(t, ctx, `rows.size === 3 && [...rows.values()].every((r) => r.c.state === "waiting")`)
	do(t, ctx, chromedp.Evaluate[chromedp.Void](`for (const r of rows.values()) r.toggle()`))
	await(t, ctx, `document.querySelectorAll(".more").length === 3`)
	// A close is first told by the state, and by the lists of attempts with a later update.
	await(t, ctx, `document.body.innerText.split(%q).length > 1+3*4`, hostile)
	if n := evaluate[int](t, ctx, `document.querySelectorAll("img, #clients b b").length + (window.harmed ?? 0)`); n != 0 {
		t.Error("it became more than text")
	}
	const inject = `(() => {
		const script = document.createElement("script");
		script.textContent = "window.harmed = 1";
		document.body.append(script);
		return window.harmed === 1;
	})()`
	if evaluate[bool](t, ctx, inject) {
		t.Error("the policy allows other scripts")
	}
}

// TestPageFits looks for a page that is wider than its window.
func TestPageFits(t *testing.T) {
	ctx := browser(t)
	var h debug.Handler
	fleet(t, &h, 20)
	remove, err := h.Add(strings.Repeat("a-name-without-end-", 12), newClient(t, "ws://localhost"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	url := served(t, &h)
	for _, width := range []int64{320, 360, 561, 768, 1021, 1200, 2000} {
		for _, color := range []string{"light", "dark"} {
			look(t, ctx, width, 800, color)
			do(t, ctx, chromedp.Navigate(url))
			await(t, ctx, `rows.size === 21 && rows.get("legacy").c.state === "closed"`)
			do(t, ctx, chromedp.Evaluate[chromedp.Void](`for (const r of rows.values()) r.toggle()`))
			await(t, ctx, `document.querySelectorAll(".more").length === 21`)
			if wide := evaluate[int64](t, ctx, `document.documentElement.scrollWidth`); wide > width {
				t.Errorf("%d px, %s: the page is %d px wide", width, color, wide)
			}
			dark := evaluate[string](t, ctx, `getComputedStyle(document.body).backgroundColor`) == "rgb(20, 20, 19)"
			if dark != (color == "dark") {
				t.Errorf("%s: dark is %t", color, dark)
			}
		}
	}
}

// TestPageOfAThousand measures how long a page of 1,000 clients takes to load, and what it
// takes to use it.
func TestPageOfAThousand(t *testing.T) {
	ctx := browser(t)
	var h debug.Handler
	fleet(t, &h, 1000)
	url := served(t, &h)
	began := time.Now()
	do(t, ctx, chromedp.Navigate(url))
	await(t, ctx, `rows.size === 1000 && document.querySelectorAll(".client").length === 1000`)
	loaded := time.Since(began)
	do(t, ctx, chromedp.Evaluate[chromedp.Void](`
		window.longest = 0;
		new PerformanceObserver((list) => {
			for (const task of list.getEntries()) longest = Math.max(longest, task.duration);
		}).observe({type: "longtask"})`), chromedp.Sleep(5*time.Second))
	longest := evaluate[float64](t, ctx, `longest`)
	const search = `(async () => {
		const began = performance.now();
		filterBox.value = "trades-503";
		filterBox.dispatchEvent(new Event("input"));
		await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
		return performance.now() - began;
	})()`
	filtered, err := chromedp.Run(ctx, chromedp.Evaluate[float64](search, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	if n := evaluate[int](t, ctx, `document.querySelectorAll(".client:not([hidden])").length`); n != 1 {
		t.Errorf("the filter shows %d clients, want 1", n)
	}
	t.Logf("loaded in %v; longest task in 5 s of updates %.0f ms; filtered in %.0f ms", loaded, longest, filtered)
	if loaded > 15*time.Second || longest > 2000 || filtered > 2000 { // far more than it takes, on a busy machine
		t.Errorf("too slow: loaded in %v, longest task %.0f ms, filtered in %.0f ms", loaded, longest, filtered)
	}
}
