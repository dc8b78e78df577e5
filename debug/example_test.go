package debug_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/resock/resock"
	"github.com/resock/resock/debug"
)

// Show a client on a page. The address is one that only this machine reaches: put the page
// behind authentication wherever others do.
func ExampleHandler() {
	client, err := resock.New("wss://example.com/push")
	if err != nil {
		log.Fatal(err)
	}

	var page debug.Handler
	remove, err := page.Add("prices", client)
	if err != nil {
		log.Fatal(err)
	}
	defer remove()

	mux := http.NewServeMux()
	mux.Handle("/debug/resock", &page)
	go http.ListenAndServe("localhost:6060", mux) // and open http://localhost:6060/debug/resock
}

// Mount the page behind the authentication of the program.
func ExampleHandler_authentication() {
	var page debug.Handler
	mux := http.NewServeMux()
	mux.Handle("/debug/resock", authenticated(&page))

	server := httptest.NewServer(mux)
	defer server.Close()
	res, err := http.Get(server.URL + "/debug/resock?json")
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	fmt.Println(res.StatusCode, strings.TrimSpace(string(body)))
	// Output: 401 who are you?
}

func authenticated(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || !valid(user, password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="debug"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func valid(user, password string) bool { return false }
