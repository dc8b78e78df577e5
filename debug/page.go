package debug

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"
	"time"
)

// The page is one document. Its parts are files of their own, to be edited as what they are.
var (
	//go:embed page.html
	document string
	//go:embed style.css
	style string
	//go:embed script.js
	script string

	page = strings.NewReplacer("/* style.css */", style, "/* script.js */", script).Replace(document)
)

// before and after are what surrounds the table for browsers without scripts.
var before, after, _ = strings.Cut(page, "<!-- table -->")

// policy allows the page its own script and style, by their hashes, and its stream.
var policy = strings.Join([]string{
	"default-src 'none'",
	"script-src " + hashOf(script),
	"style-src " + hashOf(style),
	"connect-src 'self'",
	"img-src data:", // the icon, which is empty
	"base-uri 'none'",
	"form-action 'none'",
	"frame-ancestors 'none'",
}, "; ")

// hashOf returns the hash of what is in an element, as a policy has it.
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// table is the page for browsers without scripts.
var table = template.Must(template.New("table").Parse(`
<p>{{len .Clients}} clients at {{.Time}}. Without scripts the page does not update itself.</p>
<table>
<thead><tr><th>Name<th>State<th>Since<th>Session<th>URL<th>In<th>Out<th>Queued<th>Dropped<th>Blocked by<th>Last end
<tbody>{{range .Clients}}
<tr><th scope="row">{{.Name}}<td>{{.State}}<td>{{.Since}}<td>{{.Session}}<td>{{.URL}}<td>{{.MessagesIn}}<td>{{.MessagesOut}}<td>{{.Queued}}<td>{{.Dropped}}<td>{{.BlockedBy}}<td>
{{- if .Ends}}{{with index .Ends 0}}{{.Time}} {{.Phase}} {{.Error}} {{if .Code}}closed: {{.Code}} {{.Reason}}{{end}} {{.Rule}}{{end}}{{end}}{{end}}
</table>
`))

// String is for the table.
func (s stamp) String() string { return s.time().Format(time.DateTime) + " UTC" }

func (h *Handler) servePage(w http.ResponseWriter) {
	var b bytes.Buffer
	b.WriteString(before)
	_ = table.Execute(&b, h.report()) // cannot fail
	b.WriteString(after)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // fails only if the reader is gone
}
