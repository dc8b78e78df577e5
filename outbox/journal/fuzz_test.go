package journal

import (
	"context"
	"testing"

	"github.com/resock/resock"
)

// FuzzOpen opens a journal of two files with any bytes: it takes a record, and when it is
// opened again, all is there that was.
func FuzzOpen(f *testing.F) {
	d, config, _ := example(f)
	var files [][]byte
	for _, name := range []string{"00000001.log", lastFile(d)} {
		files = append(files, d.names[name].data)
	}
	f.Add(files[0], files[1])
	f.Add([]byte{}, []byte{})
	f.Add(files[0][:100], files[1][:len(files[1])-1])
	f.Add(appendDone(appendHead(nil, 1), []span{{1, mostNumber - 1}, {3, 2}, {0, 1}}), appendPut(appendHead(nil, 31), mostNumber-1, "", 1, nil))
	f.Add(appendPut(appendHead(nil, 2), 1, "", 1, nil), appendPut(appendPut(appendHead(nil, 31), 40, "", 1, nil), 40, "", 1, nil))
	f.Fuzz(func(t *testing.T, first, last []byte) {
		d := newMemory()
		d.names["00000001.log"], d.names["00000031.log"] = &content{data: first}, &content{data: last}
		j, err := openDisk(d, "folder", config)
		if err != nil {
			return // another format, or renamed
		}
		before := len(all(t, j))
		n, err := j.Put(context.Background(), "id", resock.MessageText, last)
		if err == nil {
			before++
		} else if j.next < mostNumber {
			t.Fatal(err)
		}
		closeNow(t, j)
		j = openIn(t, d, config)
		records := all(t, j)
		if len(records) != before || err == nil && records[before-1].Number != n {
			t.Fatalf("%d records, want %d", len(records), before)
		}
	})
}
