//go:build !linux

package tcp

func (*Conn) userTimeout() (timeout, bool) { return 0, false }

func (*Conn) setUserTimeout(timeout) bool { return false }

func (*Conn) info() (Info, bool) { return Info{}, false }
