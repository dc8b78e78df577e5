package call_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/resock/resock"
	"github.com/resock/resock/call"
	"github.com/resock/resock/resocktest"
)

func ExampleCalls() {
	server := resocktest.NewServer(nil)
	defer server.Close()
	server.Handle(func(conn *resocktest.Conn) {
		m, _ := conn.Read()
		var request struct{ ID string }
		_ = json.Unmarshal(m.Data, &request)
		_ = conn.Push("a push in between")
		_ = conn.Push(fmt.Sprintf(`{"id":%q,"time":"noon"}`, request.ID))
	})

	calls := call.New(func(m resock.MessageEvent) (string, bool) {
		var answer struct{ ID string }
		err := json.Unmarshal(m.Data, &answer)
		return answer.ID, err == nil && answer.ID != ""
	})
	client, err := resock.New(server.URL, resock.WithFilter(calls.Filter))
	if err != nil {
		panic(err)
	}
	if err := calls.Bind(client); err != nil {
		panic(err)
	}
	ctx := context.Background()
	go client.Run(ctx)

	answer, err := calls.Do(ctx, "42", resock.MessageText, []byte(`{"id":"42","op":"time"}`))
	fmt.Println(string(answer.Data), err)
	_ = client.Close(resock.StatusNormalClosure, "")
	<-client.Done()
	// Output: {"id":"42","time":"noon"} <nil>
}
