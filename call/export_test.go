package call

// Waiting returns how many calls wait.
func (c *Calls) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting)
}

// Late is the outcome of a call whose request turns out to be written in a session that
// is over already.
func (c *Calls) Late(session uint64) error {
	w, err := c.register("late")
	if err != nil {
		return err
	}
	c.over(session, nil)
	c.sent("late", w, session)
	select {
	case o := <-w.done:
		return o.err
	default:
		return nil
	}
}
