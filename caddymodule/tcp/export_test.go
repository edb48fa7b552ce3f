package tcp

// Socket returns what names the kernel's socket.
func (c *Conn) Socket() (fd uintptr, err error) {
	err = c.raw.Control(func(is uintptr) { fd = is })
	return fd, err
}

// Watched tells whether the kernel watches the connection, as those who called
// Watch asked it to. It does not where it cannot: on other systems than Linux, and
// on a connection that was closed before.
func (c *Conn) Watched() bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watched != 0
}
