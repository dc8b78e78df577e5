package snippets

import (
	"context"
	"net/http"
	"time"

	coder "github.com/coder/websocket"
	"golang.org/x/time/rate"

	"github.com/resock/resock"
)

// snippet: gorilla-after
func receive(ctx context.Context, url string, handle func([]byte)) error {
	client, err := resock.New(url, resock.WithOnOpen(register))
	if err != nil {
		return err
	}
	messages := client.Messages(ctx) // before Run
	go client.Run(ctx)
	for m := range messages {
		handle(m.Data)
	}
	<-client.Done()
	return client.Err()
}

func register(ctx context.Context, s *resock.Session) error {
	return s.Send(ctx, resock.MessageText, []byte("register me"))
}

// end of snippet

// snippet: recws-after
func afterRecws(url string, header http.Header) (*resock.Client, error) {
	return resock.New(url,
		resock.WithHeader(header),
		resock.WithOnOpen(register),                          // SubscribeHandler
		resock.WithHeartbeat(25*time.Second, 10*time.Second), // KeepAliveTimeout
		resock.WithBackoff(2*time.Second, 30*time.Second),    // RecIntvlMin, RecIntvlMax
		resock.WithDialTimeout(2*time.Second))                // HandshakeTimeout
}

// end of snippet

// snippet: finish
// finish ends the client, without an error, when the server closes with 1000.
func finish(f resock.Failure) resock.Decision {
	if f.Code == resock.StatusNormalClosure {
		return resock.Decision{Action: resock.ActionFinish, Rule: "all done"}
	}
	return resock.DefaultRetryPolicy(f)
}

// end of snippet

// snippet: coder-after
func afterCoder(url string, options *coder.DialOptions) (*resock.Client, error) {
	return resock.New(url,
		resock.WithDialOptions(options), // the same as of websocket.Dial
		resock.WithReadLimit(32<<10),    // that of coder/websocket; 1 MiB by default
		resock.WithOnOpen(register))
}

// end of snippet

// snippet: gws-after
func afterGws(url string, handle func([]byte)) (*resock.Client, error) {
	return resock.New(url,
		resock.WithOnOpen(register), // OnOpen
		resock.WithMessageHandler(func(_ context.Context, m resock.MessageEvent) { // OnMessage
			handle(m.Data) // only during the call, as with gws
		}))
}

// end of snippet

// snippet: rate
// polite returns a client that sends five messages a second, in bursts of ten, and makes
// one attempt to connect a second, for a server that counts those, too.
func polite(url string) (*resock.Client, error) {
	return resock.New(url,
		resock.WithSendLimiter(rate.NewLimiter(5, 10)),
		resock.WithDialLimiter(rate.NewLimiter(1, 1)))
}

// end of snippet
