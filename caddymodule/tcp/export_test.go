package tcp

// Socket returns what names the kernel's socket.
func (c *Conn) Socket() (fd uintptr, err error) {
	err = c.raw.Control(func(is uintptr) { fd = is })
	return fd, err
}
