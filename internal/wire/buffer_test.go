package wire

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestBufferTiers checks which buffer a connection uses for each read, and that it
// holds no other.
func TestBufferTiers(t *testing.T) {
	small, medium := frame(finBit|opBinary, "small"), frame(finBit|opBinary, strings.Repeat("m", 1000))
	burst := bytes.Repeat(medium, 200)
	bothWays(t, func(t *testing.T, set setting) {
		tiers := map[int][]int{} // sizes of the buffer before each read of a piece
		f := &feed{pieces: [][]byte{small, small, medium, small, burst, small, small}}
		c, _ := start(t, set, f)
		r := &c.in
		f.idle = func(piece int) {
			tiers[piece] = append(tiers[piece], len(r.buf))
			if (r.large != nil) != (len(r.buf) == largeBuffer) {
				t.Errorf("piece %d: large buffer held: %v, in use: %v", piece, r.large != nil, len(r.buf) == largeBuffer)
			}
			if (r.small != nil) != (len(r.buf) == smallBuffer) {
				t.Errorf("piece %d: small buffer held: %v, in use: %v", piece, r.small != nil, len(r.buf) == smallBuffer)
			}
		}
		if err := drain(c); endOf(err) != endLost {
			t.Error(err)
		}
		for _, piece := range []int{0, 1, 2, 7} { // after small reads
			if got := tiers[piece][0]; got != inlineBuffer {
				t.Errorf("before piece %d: a buffer of %d bytes", piece, got)
			}
		}
		if !slices.Contains(tiers[4], largeBuffer) {
			t.Errorf("during a burst: buffers of %v bytes", tiers[4])
		}
		c.Release()
		if r.small != nil || r.large != nil || r.buf != nil {
			t.Error("a buffer was not returned to its pool")
		}
	})
}

// TestBufferFits checks how earlier reads determine the buffer for the next one.
func TestBufferFits(t *testing.T) {
	for _, test := range []struct {
		name  string
		reads []int // bytes that each returned, all processed before the next
		want  int
	}{
		{"no read", nil, inlineBuffer},
		{"nearly all of the inline buffer", []int{inlineBuffer - 1}, inlineBuffer},
		{"all of the inline buffer", []int{inlineBuffer}, smallBuffer},
		{"just too much for the inline buffer", []int{inlineBuffer, inlineBuffer + 1}, smallBuffer},
		{"just enough for the inline buffer", []int{inlineBuffer, inlineBuffer}, inlineBuffer},
		{"nearly all of the small buffer", []int{inlineBuffer, smallBuffer - 1}, smallBuffer},
		{"all of the small buffer", []int{inlineBuffer, smallBuffer}, largeBuffer},
		{"all of the large buffer", []int{inlineBuffer, smallBuffer, largeBuffer}, largeBuffer},
		{"nearly all of the large buffer", []int{inlineBuffer, smallBuffer, largeBuffer - 1}, smallBuffer},
		{"little in the large buffer", []int{inlineBuffer, smallBuffer, 10}, inlineBuffer},
	} {
		var b buffer
		for _, n := range test.reads {
			if room := len(b.room()); room < n {
				t.Fatalf("%s: room for %d bytes, want at least %d", test.name, room, n)
			}
			b.add(n)
			b.r += n
		}
		if got := len(b.room()); got != test.want {
			t.Errorf("%s: room for %d bytes, want %d", test.name, got, test.want)
		}
	}
}

// TestBufferKeepsPartOfAFrame checks that unprocessed bytes survive a change of buffers,
// and that the buffer does not change before it is full.
func TestBufferKeepsPartOfAFrame(t *testing.T) {
	var b buffer
	const read = inlineBuffer - 50
	copy(b.room(), strings.Repeat("a", read))
	b.add(read)
	b.r = read - 10
	if got := len(b.room()); got != inlineBuffer-10 {
		t.Errorf("after 10 unprocessed bytes: room for %d", got)
	}
	for _, size := range []int{inlineBuffer, smallBuffer, largeBuffer} {
		left := len(b.received())
		room := b.room()
		if len(room) != size-left {
			t.Fatalf("buffer of %d bytes, %d of them unprocessed: room for %d", size, left, len(room))
		}
		copy(room, bytes.Repeat([]byte("b"), len(room)))
		b.add(len(room))
		b.r += 5
	}
	got := b.received()
	if want := bytes.Repeat([]byte("b"), largeBuffer-5); !bytes.Equal(got, want) {
		t.Errorf("%d unprocessed bytes: %q", len(got), got)
	}
}

// TestBufferAtRandom compares a buffer with a model, a plain slice.
func TestBufferAtRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var b buffer
	var model []byte
	for i := range 3000 {
		room := b.room()
		if len(room) == 0 && len(model) < largeBuffer {
			t.Fatalf("no room after %d unprocessed bytes", len(model))
		}
		n := random.IntN(len(room) + 1)
		if random.IntN(3) == 0 {
			n = min(n, 20)
		}
		if random.IntN(3) == 0 {
			n = len(room)
		}
		for j := range room[:n] {
			room[j] = byte(i + j)
		}
		model = append(model, room[:n]...)
		b.add(n)
		handled := random.IntN(len(model) + 1)
		if len(model) == largeBuffer && handled == 0 || random.IntN(3) == 0 {
			handled = len(model)
		}
		b.r += handled
		model = model[handled:]
		if !bytes.Equal(b.received(), model) {
			t.Fatalf("step %d: got % x, want % x", i, b.received(), model)
		}
	}
}

// TestBuffersAreReturned checks that a buffer returns to its pool at the first read
// that does not need it, and when the connection is released.
func TestBuffersAreReturned(t *testing.T) {
	full := func(b *buffer) {
		n := len(b.room())
		b.add(n)
		b.r += n
	}
	if !recycled(&smallBuffers, func() *[smallBuffer]byte {
		var b buffer
		full(&b)
		b.room()
		used := b.small
		b.add(1)
		b.r = 1
		b.room()
		return used
	}) {
		t.Error("the small buffer was not returned to its pool")
	}
	if !recycled(&largeBuffers, func() *[largeBuffer]byte {
		var b buffer
		full(&b)
		full(&b)
		b.room()
		used := b.large
		b.add(1)
		b.r = 1
		b.room()
		return used
	}) {
		t.Error("the large buffer was not returned to its pool")
	}
	if !recycled(&smallBuffers, func() *[smallBuffer]byte {
		c, _ := start(t, setting{}, &script{end: io.EOF})
		full(&c.in.buffer)
		c.in.room()
		used := c.in.small
		c.Release()
		return used
	}) {
		t.Error("the buffer of a released connection was not returned to its pool")
	}
}

func TestReadNoProgress(t *testing.T) {
	for _, empty := range []int{0, 99, 100} { // reads that return nothing
		calls := 0
		c, _ := start(t, setting{limit: 10}, readFunc(func(p []byte) (int, error) {
			if calls++; calls <= empty {
				return 0, nil
			}
			return copy(p, frame(finBit|opText, "text")), io.EOF
		}))
		burst, err := next(c)
		switch {
		case empty < 100:
			if err != nil || len(burst) != 1 {
				t.Errorf("after %d empty reads: %v", empty, err)
			}
		case !errors.Is(err, io.ErrNoProgress) || endOf(err) != endLost || calls != 100:
			t.Errorf("after %d empty reads: %v", calls, err)
		}
		c.Release()
	}
}

// TestHugeHeader checks that memory grows with the payload that arrives, not with the
// length that a header announces.
func TestHugeHeader(t *testing.T) {
	for _, test := range []struct {
		length, limit int64
		most          uint64
	}{
		{-1 << 63, 1 << 20, 8 << 10},
		{1 << 40, 1 << 20, 8 << 10},
		{1 << 40, 1 << 41, growFrom + 64<<10},
		{1<<63 - 2, 1<<63 - 2, growFrom + 64<<10},
	} {
		for _, borrow := range []bool{false, true} {
			for _, first := range []byte{finBit | opBinary, opBinary} {
				stream := append(head(first, uint64(test.length)), "some bytes"...)
				c, o := start(t, setting{limit: test.limit, borrow: borrow}, &script{in: stream, end: io.EOF})
				if got := allocated(func() { _ = drain(c) }); got > test.most {
					t.Errorf("%+v: allocated %d bytes", test, got)
				}
				finish(c, o)
			}
		}
	}
}

// TestReadAllocations checks that a borrowed message costs no allocation, and a small
// one only a share of a block.
func TestReadAllocations(t *testing.T) {
	const count = 1000
	for _, test := range []struct {
		payload string
		borrow  bool
		most    float64 // allocations per message
	}{
		{"small message", true, 0.01},
		{"small message", false, 0.05},
		{strings.Repeat("m", 3000), true, 0.01},
		{strings.Repeat("m", 3000), false, 1.01},
		{strings.Repeat("m", 100_000), true, 0.01},
		{strings.Repeat("m", 100_000), false, 1.01},
	} {
		stream := bytes.Repeat(frame(finBit|opBinary, test.payload), count)
		src := &script{end: io.EOF}
		got := testing.AllocsPerRun(1, func() {
			src.in = stream
			c, o := start(t, setting{limit: 1 << 20, borrow: test.borrow}, src)
			_ = drain(c)
			finish(c, o)
		})
		if got > 20+count*test.most {
			t.Errorf("%d bytes, borrow %v: %v allocations for %d messages", len(test.payload), test.borrow, got, count)
		}
	}
}

// TestAllocationsOfFragments checks that fragmented messages are reassembled in pooled
// memory.
func TestAllocationsOfFragments(t *testing.T) {
	const count = 200
	for _, test := range []struct {
		size   int
		borrow bool
		most   float64
	}{
		{100, true, 0.01},
		{100, false, 1.01},
		{3000, false, 1.01},
		{100_000, true, 0.01},
		{100_000, false, 1.01},
	} {
		part := strings.Repeat("m", test.size/2)
		stream := bytes.Repeat(join(frame(opBinary, part), frame(finBit|opContinuation, part)), count)
		src := &script{end: io.EOF}
		got := testing.AllocsPerRun(1, func() {
			src.in = stream
			c, o := start(t, setting{limit: 1 << 20, borrow: test.borrow}, src)
			_ = drain(c)
			finish(c, o)
		})
		if got > 40+count*test.most {
			t.Errorf("%d bytes, borrow %v: %v allocations for %d messages", test.size, test.borrow, got, count)
		}
	}
}

// TestCarvedMessages checks that messages that share a block do not change when another
// is appended to, nor when the receive buffer is reused.
func TestCarvedMessages(t *testing.T) {
	var stream []byte
	var want, got []string
	for i := range 3000 {
		payload := strings.Repeat(string(rune('a'+i%26)), rand.IntN(60)*rand.IntN(60))
		want = append(want, payload)
		stream = append(stream, frame(finBit|opBinary, payload)...)
	}
	c, o := start(t, setting{limit: 1 << 20}, &script{in: stream, cut: func() int { return 1 + rand.IntN(9000) }, end: io.EOF})
	var kept [][]byte
	for {
		burst, err := next(c)
		if err != nil {
			break
		}
		for _, m := range burst {
			kept = append(kept, m.Data)
			_ = append(m.Data, "overwrites"...)
		}
	}
	finish(c, o)
	for _, data := range kept {
		got = append(got, string(data))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d messages differ from the %d sent", len(got), len(want))
	}
}

// TestCarve checks which messages share a block, and how large it is.
func TestCarve(t *testing.T) {
	payload := bytes.Repeat([]byte("p"), maxCarved+1)
	var r reader
	if data := r.carve(payload[:0], 0); data == nil || len(data) != 0 {
		t.Errorf("an empty message is %v", data)
	}

	// A block has room for what is left in the receive buffer, and no more.
	r = reader{}
	first := r.carve(payload[:100], 50)
	if len(r.block) != 50 {
		t.Errorf("room for %d more bytes in the block", len(r.block))
	}
	second := r.carve(payload[:50], 0)
	if len(r.block) != 0 || !adjacent(first, second) || cap(first) != 100 {
		t.Error("a message that fits into the block does not share it")
	}
	if third := r.carve(payload[:1], 0); adjacent(second, third) || string(third) != "p" {
		t.Error("a message that does not fit into the block shares it")
	}

	r = reader{}
	r.carve(payload[:100], 1<<20)
	if len(r.block) != blockSize-100 {
		t.Errorf("a block of %d bytes", 100+len(r.block))
	}
	block := r.block
	if data := r.carve(payload, 1<<20); len(r.block) != len(block) || len(data) != maxCarved+1 || &data[0] == &payload[0] {
		t.Error("a large message shares a block")
	}
	if data := r.carve(payload[:maxCarved], 0); len(r.block) != len(block)-maxCarved || &data[0] != &block[0] {
		t.Error("a message of maxCarved bytes does not share the block")
	}
}

func TestGrow(t *testing.T) {
	for _, test := range []struct{ length, capacity, limit, want int }{
		{0, 0, 10, 10},
		{0, 0, 1 << 20, smallBuffer},
		{100, 100, 101, 101},
		{smallBuffer / 2, smallBuffer / 2, 1 << 20, smallBuffer},
		{3000, 3000, 1 << 20, 6000},
		{3000, 3000, 5000, 5000},
		{1 << 20, 1 << 20, 1 << 40, 2 << 20},
	} {
		data := bytes.Repeat([]byte("d"), test.length)[:test.length:test.capacity]
		got := grow(data, int64(test.limit))
		if !bytes.Equal(got, data) || cap(got) != test.want {
			t.Errorf("%+v: got len %d and cap %d", test, len(got), cap(got))
		}
	}
}

// TestReadCounts checks that the counters are up to date while the reader waits, and
// when reading has ended.
func TestReadCounts(t *testing.T) {
	var c *Conn
	var o *owner
	type counts struct{ messages, bytes uint64 }
	counted := func() counts {
		return counts{c.config.Counters.MessagesIn.Load(), c.config.Counters.BytesIn.Load()}
	}
	two := join(frame(finBit|opText, "one"), frame(finBit|opText, "two"))
	c, o = start(t, setting{limit: 10}, &feed{
		pieces: [][]byte{two, two[:3], two[3:]},
		idle: func(piece int) {
			if got, want := counted(), []counts{{0, 0}, {2, 10}, {2, 13}, {4, 20}}[piece]; got != want {
				t.Errorf("before piece %d: counted %v, want %v", piece, got, want)
			}
		},
	})
	if err := drain(c); endOf(err) != endLost {
		t.Error(err)
	}
	finish(c, o)

	for _, last := range []bool{false, true} { // if true, there is no wait after the last bytes
		c, o = start(t, setting{limit: 1000}, &script{in: mixedStream, end: io.EOF, last: last})
		_ = drain(c)
		if got, want := counted(), (counts{uint64(len(mixedOutcome.messages)), uint64(len(mixedStream))}); got != want {
			t.Errorf("counted %v, want %v", got, want)
		}
		if c.Reads() == 0 {
			t.Error("no read is counted")
		}
		finish(c, o)
	}
}

// TestReleaseCounts checks that the counters are up to date if reading stops early.
func TestReleaseCounts(t *testing.T) {
	two := join(frame(finBit|opText, "one"), frame(finBit|opText, "two"))
	c, _ := start(t, setting{limit: 10}, &script{in: two, end: io.EOF})
	if _, err := next(c); err != nil {
		t.Fatal(err)
	}
	c.Release()
	if messages, bytes := c.config.Counters.MessagesIn.Load(), c.config.Counters.BytesIn.Load(); messages != 2 || bytes != 10 {
		t.Errorf("%d messages of %d bytes counted", messages, bytes)
	}
}

// TestLateError checks that an error that comes along with bytes is reported after the
// messages in these bytes, and that the transport is not read again.
func TestLateError(t *testing.T) {
	large := strings.Repeat("l", 10_000)
	for name, test := range map[string]struct {
		pieces [][]byte
		want   int // messages
		end    string
	}{
		"a message":              {whole(frame(finBit|opText, "three")), 1, endLost},
		"two messages":           {whole(frame(finBit|opText, "three"), frame(finBit|opText, "four")), 2, endLost},
		"a message and a ping":   {whole(frame(finBit|opText, "three"), frame(finBit|opPing, "")), 1, endLost},
		"a fragmented message":   {whole(frame(opText, "th"), frame(finBit|opContinuation, "ree")), 1, endLost},
		"part of a header":       {whole([]byte{finBit | opText}), 0, endLost},
		"part of a message":      {whole(head(finBit|opText, 5)), 0, endLost},
		"part of a fragment":     {whole(frame(opText, "th"), head(opContinuation, 5)), 0, endLost},
		"part of a ping":         {whole(head(finBit|opPing, 5), []byte("p")), 0, endLost},
		"a close frame":          {whole(frame(finBit|opClose, closePayload(1000, "bye"))), 0, endClosed(1000, "bye")},
		"a violation":            {whole(frame(finBit|opText, "\xff")), 0, endProtocol(1007)},
		"the end of a large one": {append(whole(frame(finBit|opText, large)[:300]), []byte(large[4:300]), []byte(large[592:])), 1, endLost},
	} {
		t.Run(name, func(t *testing.T) {
			over := false
			c, o := start(t, setting{limit: 1 << 20}, readFunc(func(p []byte) (n int, err error) {
				if over {
					t.Error("read after an error")
				}
				n = copy(p, test.pieces[0])
				if test.pieces[0] = test.pieces[0][n:]; len(test.pieces[0]) == 0 {
					test.pieces = test.pieces[1:]
				}
				if over = len(test.pieces) == 0; over {
					err = io.ErrClosedPipe
				}
				return n, err
			}))
			messages, err := readAll(t, c)
			if got := messages(); len(got) != test.want {
				t.Errorf("got the messages %v", got)
			}
			if endOf(err) != test.end || test.end == endLost && !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("Next returned %v, want %s", err, test.end)
			}
			finish(c, o)
		})
	}
}

// TestNothingIsPinned checks that a waiting connection refers to no earlier message.
func TestNothingIsPinned(t *testing.T) {
	three := bytes.Repeat(frame(finBit|opText, "small"), 3)
	bothWays(t, func(t *testing.T, set setting) {
		var c *Conn
		c, o := start(t, set, &feed{
			pieces: [][]byte{three, three[:7], three},
			idle: func(piece int) {
				r := &c.in
				if r.n != 0 || r.first[0].Data != nil || r.block != nil {
					t.Errorf("before piece %d: refers to %d messages, %v, and a block of %d bytes", piece, r.n, r.first, len(r.block))
				}
				if r.burst != nil && !isClear(r.burst[:]) {
					t.Errorf("before piece %d: refers to the burst %v", piece, r.burst)
				}
			},
		})
		var burst []Message
		for {
			next, err := next(c)
			if len(burst) > len(next) && !isClear(burst[len(next):]) {
				t.Errorf("the previous burst was not cleared: %v", burst)
			}
			if err != nil {
				break
			}
			burst = next
		}
		finish(c, o)
		if r := &c.in; r.first[0].Data != nil || r.block != nil || r.burst != nil || r.buf != nil {
			t.Errorf("refers to %v, %v after Release", r.first, r.burst)
		}
	})
}

func isClear(messages []Message) bool {
	return !slices.ContainsFunc(messages, func(m Message) bool { return m.Type != 0 || m.Data != nil })
}

// TestPooledMemoryIsReturned checks that memory for bursts and large messages returns
// to its pool at the second read after its last use.
func TestPooledMemoryIsReturned(t *testing.T) {
	small := frame(finBit|opText, "small")
	burst := bytes.Repeat(small, 10)
	large := frame(finBit|opBinary, strings.Repeat("l", 100_000))
	huge := head(finBit|opBinary, 48<<20)
	parts := join(frame(opText, "pa"), frame(finBit|opContinuation, "rts"))
	type held struct {
		burst   bool
		scratch int
	}
	for name, test := range map[string]struct {
		borrow bool
		pieces [][]byte
		want   map[int]held // before the read of a piece
	}{
		"bursts": {false, [][]byte{burst, burst, small, small},
			map[int]held{0: {}, 1: {burst: true}, 2: {burst: true}, 3: {}, 4: {}}},
		"a burst, and pings": {true, [][]byte{burst, frame(finBit|opPing, ""), small},
			map[int]held{1: {burst: true}, 2: {}, 3: {}}},
		"a large message": {true, [][]byte{large, small, small},
			map[int]held{0: {}, 1: {scratch: 100_000}, 2: {}, 3: {}}},
		"one message of 48 MiB, and then small ones": {true, [][]byte{huge, make([]byte, 48<<20), small, small, small},
			map[int]held{0: {}, 2: {scratch: 48 << 20}, 3: {}, 4: {}, 5: {}}},
		"a large message, not borrowed": {false, [][]byte{large, small}, map[int]held{1: {}}},
		"a fragmented message":          {false, [][]byte{parts, small, small}, map[int]held{1: {scratch: 5}, 2: {}, 3: {}}},
	} {
		t.Run(name, func(t *testing.T) {
			var c *Conn
			seen := map[int]bool{}
			f := &feed{pieces: slices.Clone(test.pieces)}
			f.idle = func(piece int) {
				want, ok := test.want[piece]
				if !ok || seen[piece] {
					return
				}
				seen[piece] = true
				r := &c.in
				if (r.burst != nil) != want.burst {
					t.Errorf("before piece %d: array of a burst held: %v", piece, r.burst != nil)
				}
				if (r.scratch != nil) != (want.scratch > 0) || r.scratch != nil && cap(*r.scratch) < want.scratch {
					t.Errorf("before piece %d: memory for messages held: %v", piece, r.scratch != nil)
				}
			}
			c, o := start(t, setting{limit: 64 << 20, borrow: test.borrow}, f)
			if err := drain(c); endOf(err) != endLost {
				t.Error(err)
			}
			finish(c, o)
			if c.in.scratch != nil || c.in.burst != nil {
				t.Error("memory is held after Release")
			}
		})
	}
}

// TestPooledMemoryIsReused checks that memory returns to its pool, unless it is huge.
func TestPooledMemoryIsReused(t *testing.T) {
	ten := bytes.Repeat(frame(finBit|opText, "small"), 10)
	if !recycled(&bursts, func() *[maxBurst]Message {
		c, _ := start(t, setting{limit: 10}, &script{in: ten, end: io.EOF})
		if _, err := next(c); err != nil {
			t.Fatal(err)
		}
		used := c.in.burst
		c.Release()
		return used
	}) {
		t.Error("the array of a burst was not returned to its pool")
	}
	sized := func(size int) func() *[]byte {
		return func() *[]byte {
			c, _ := start(t, setting{limit: 1}, &script{end: io.EOF})
			c.in.borrowScratch(1)
			used := c.in.scratch
			*used = make([]byte, 0, size)
			c.Release()
			return used
		}
	}
	if !recycled(&scratch, sized(maxScratch)) {
		t.Error("memory for messages was not returned to its pool")
	}
	if recycled(&scratch, sized(maxScratch+1)) {
		t.Error("memory for a huge message was returned to the pool")
	}
}

// TestScratchHasRoom checks that scratch memory grows to what is asked for, no further.
func TestScratchHasRoom(t *testing.T) {
	var r reader
	r.scratch = new([]byte)
	for _, test := range []struct{ n, want int }{{100, 100}, {50, 100}, {100, 100}, {101, 101}} {
		got := r.borrowScratch(test.n)
		if len(got) != 0 || cap(got) != test.want {
			t.Errorf("for %d bytes: got len %d and cap %d", test.n, len(got), cap(got))
		}
		*r.scratch = append(got, "used"...)
	}
}
