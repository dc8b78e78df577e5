package main

import "time"

// peer is a library, or one way to use it. What it cannot do is nil.
type peer struct {
	// receive dials, sends one message to say that it is ready, and notes each
	// message that it receives.
	receive func(t target, r *reception) error

	// connect dials and returns what makes senders, one for each goroutine.
	connect func(t target) (newSender func() sender, err error)

	// exchange sends data and waits for the answer, again and again.
	exchange func(t target, data []byte, trips *roundTrips) error

	// open dials a connection on which nothing is said, after the target's
	// traffic, but a ping every interval, if that is not 0, and reads it in the
	// background. It counts the messages of the traffic.
	open func(t target, interval time.Duration) (hangUp func(), err error)

	// reconnect dials, waits for the server to drop the connection, and notes
	// it, again and again.
	reconnect func(t target, m *meter) error
}

const (
	nameChannel = "resock, channel"
	nameHandler = "resock, handler"
	nameOwned   = "resock, Messages"
	nameBorrow  = "resock, Messages, borrowed"
	nameSend    = "resock Send"
	nameEnqueue = "resock Enqueue"
	nameResock  = "resock"
	nameCoder   = "coder/websocket"
	nameGorilla = "gorilla/websocket"
	nameRecws   = "recws"
	nameGws     = "gws"
	nameGobwas  = "gobwas/ws"
	nameMark    = "gobwas/ws, channel"
)

var peers = map[string]peer{
	nameChannel: {receive: resockReceiveEvents, exchange: resockExchangeEvents},
	nameHandler: {receive: resockReceiveHandler, exchange: resockExchangeHandler, open: resockOpenHandler},
	nameOwned:   {receive: resockReceiveOwned},
	nameBorrow:  {receive: resockReceiveBorrowed},
	nameSend:    {connect: resockConnectSend},
	nameEnqueue: {connect: resockConnectEnqueue},
	nameResock:  {open: resockOpen, reconnect: resockReconnect},
	nameCoder:   {receive: coderReceive, connect: coderConnect, exchange: coderExchange, open: coderOpen, reconnect: coderReconnect},
	nameGorilla: {receive: gorillaReceive, connect: gorillaConnect, exchange: gorillaExchange, open: gorillaOpen, reconnect: gorillaReconnect},
	nameRecws:   {receive: recwsReceive, connect: recwsConnect, exchange: recwsExchange, open: recwsOpen},
	nameGws:     {receive: gwsReceive, connect: gwsConnect, exchange: gwsExchange, open: gwsOpen},
	nameMark:    {receive: gobwasReceiveChannel},
	nameGobwas:  {receive: gobwasReceive, connect: gobwasConnect, exchange: gobwasExchange},
}

// readLimit is the largest message that clients with a limit accept.
const readLimit = 1 << 20

// ready is what a client says when it wants to receive.
var ready = []byte("go")
