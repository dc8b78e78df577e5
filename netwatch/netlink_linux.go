package netwatch

import (
	"errors"
	"syscall"

	"github.com/mdlayher/netlink"
)

// groups is what the kernel shall tell of (rtnetlink(7)), as a bit mask.
const groups = 1<<(syscall.RTNLGRP_LINK-1) |
	1<<(syscall.RTNLGRP_IPV4_IFADDR-1) | 1<<(syscall.RTNLGRP_IPV6_IFADDR-1) |
	1<<(syscall.RTNLGRP_IPV4_ROUTE-1) | 1<<(syscall.RTNLGRP_IPV6_ROUTE-1)

// openNetlink returns the hints of the kernel.
func openNetlink() (*hints, error) {
	conn, err := netlink.Dial(syscall.NETLINK_ROUTE, &netlink.Config{Groups: groups})
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	h := &hints{moments: make(chan struct{}, 1)}
	h.close = func() {
		_ = conn.Close()
		<-done
	}
	go func() {
		defer close(done)
		defer close(h.moments)
		for h.receive(conn) {
		}
	}()
	return h, nil
}

// receive waits for messages. It reports false when there will be none any more.
func (h *hints) receive(conn *netlink.Conn) bool {
	messages, err := conn.Receive()
	switch {
	case errors.Is(err, syscall.ENOBUFS): // the kernel had more to tell than there was room
		h.routes.Add(1)
		h.hint()
	case err != nil:
		return false
	}
	for _, message := range messages {
		switch message.Header.Type {
		case syscall.RTM_NEWROUTE, syscall.RTM_DELROUTE:
			// Routers change their routes all the time. Whatever else moves
			// this machine's traffic shows in its interfaces and addresses.
			if !defaultRoute(message.Data) {
				continue
			}
			h.routes.Add(1)
		}
		h.hint()
	}
	return true
}

func (h *hints) hint() {
	select {
	case h.moments <- struct{}{}:
	default: // one is waiting
	}
}

// defaultRoute reports whether data, which begins with a struct rtmsg, is about
// a route to everywhere: one without a single bit of a destination.
func defaultRoute(data []byte) bool {
	return len(data) >= syscall.SizeofRtMsg && data[1] == 0
}
