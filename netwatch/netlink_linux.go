package netwatch

import (
	"errors"
	"syscall"

	"github.com/mdlayher/netlink"
)

// groups is the bit mask of the rtnetlink(7) multicast groups to join.
const groups = 1<<(syscall.RTNLGRP_LINK-1) |
	1<<(syscall.RTNLGRP_IPV4_IFADDR-1) | 1<<(syscall.RTNLGRP_IPV6_IFADDR-1) |
	1<<(syscall.RTNLGRP_IPV4_ROUTE-1) | 1<<(syscall.RTNLGRP_IPV6_ROUTE-1)

// openNetlink subscribes to the kernel's notifications.
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

// receive waits for notifications. It reports false when there will be no more.
func (h *hints) receive(conn *netlink.Conn) bool {
	messages, err := conn.Receive()
	switch {
	case errors.Is(err, syscall.ENOBUFS): // notifications were lost: assume a change
		h.routes.Add(1)
		h.hint()
	case err != nil:
		return false
	}
	for _, message := range messages {
		switch message.Header.Type {
		case syscall.RTM_NEWROUTE, syscall.RTM_DELROUTE:
			// On a router, other routes change all the time. On other machines
			// what matters shows in the interfaces and addresses.
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
	default: // a hint is pending already
	}
}

// defaultRoute reports whether data, a struct rtmsg, is about a default route, whose
// destination prefix has length 0.
func defaultRoute(data []byte) bool {
	return len(data) >= syscall.SizeofRtMsg && data[1] == 0
}
