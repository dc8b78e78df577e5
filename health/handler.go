package health

import (
	"io"
	"net/http"
	"strings"
)

// ServeHTTP answers 200 if all clients are ready, and 503 if not. The body is a text: the
// first line is "ready" or "not ready", and each client that is not ready has a line with
// its name and the reason. Any path and query is served alike; methods other than GET and
// HEAD get status 405.
func (r *Readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	body := "ready\n"
	if reasons := r.reasons(); len(reasons) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		body = "not ready\n" + strings.Join(reasons, "\n") + "\n"
	}
	if req.Method == http.MethodGet {
		_, _ = io.WriteString(w, body)
	}
}
