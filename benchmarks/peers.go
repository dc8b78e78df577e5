package main

import (
	"sync/atomic"
	"time"
)

// peer is a library, or one way to use it. A function that it does not support is nil.
type peer struct {
	// receive dials, sends one message when it is ready, and counts the messages
	// that it receives.
	receive func(t target, r *reception) error

	// connect dials and returns a function that returns a sender for a goroutine.
	connect func(t target) (newSender func() sender, err error)

	// exchange repeatedly sends data and waits for the answer.
	exchange func(t target, data []byte, trips *roundTrips) error

	// open dials, and reads in the background. It counts the messages of the target's
	// traffic, after which the connection is idle except for a ping every interval,
	// unless that is 0.
	open func(t target, interval time.Duration) (hangUp func(), err error)

	// follow opens a client that counts the messages that it receives, which come when
	// start is called.
	follow func(t target, received *atomic.Int64) (start func() error, err error)

	// reconnect repeatedly dials, waits until the server drops the connection, and
	// counts that.
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
	nameMark    = "gobwas/ws, channel" // a baseline
)

var peers = map[string]peer{
	nameChannel: {receive: resockReceiveEvents, exchange: resockExchangeEvents, follow: resockFollowEvents},
	nameHandler: {receive: resockReceiveHandler, exchange: resockExchangeHandler, open: resockOpenHandler, follow: resockFollowHandler},
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

// ready is the message of a client that is ready to receive.
var ready = []byte("go")
