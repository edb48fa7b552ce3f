package caddymodule

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// redisAddress is what one address of registry redis says.
type redisAddress struct {
	hostPort           string
	encrypted          bool // rediss://
	username, password string
	db                 int
}

const defaultRedisPort = "6379"

// parseRedisAddress reads one address. Its errors have no password.
func parseRedisAddress(address string) (a redisAddress, err error) {
	if !strings.Contains(address, "://") {
		return redisAddress{hostPort: address}, checkHostPort(address)
	}
	u, err := url.Parse(address)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok { // else the whole URL is in it
			err = inner.Err
		}
		return a, err
	}
	switch {
	case u.Scheme != "redis" && u.Scheme != "rediss":
		return a, fmt.Errorf("scheme %q", u.Scheme)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return a, errors.New("a query or a fragment; what they would say is said by options")
	}
	port := u.Port()
	if port == "" {
		port = defaultRedisPort
	}
	a.hostPort, a.encrypted = net.JoinHostPort(u.Hostname(), port), u.Scheme == "rediss"
	a.username = u.User.Username()
	a.password, _ = u.User.Password()
	if db := strings.TrimPrefix(u.Path, "/"); db != "" {
		if a.db, err = strconv.Atoi(db); err != nil || a.db < 0 {
			return a, fmt.Errorf("database %q", db)
		}
	}
	return a, checkHostPort(a.hostPort)
}

func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	switch n, portErr := strconv.Atoi(port); {
	case err != nil:
		if inner, ok := errors.AsType[*net.AddrError](err); ok { // else the address is in it again
			err = errors.New(inner.Err)
		}
		return err
	case host == "":
		return errors.New("no host")
	case portErr != nil || n < 1 || n > 65535:
		return fmt.Errorf("port %q", port)
	}
	return nil
}

// redacted is the address without its password.
func redacted(address string) string {
	scheme, rest, isURL := strings.Cut(address, "://")
	at := strings.LastIndex(rest, "@")
	if !isURL || at < 0 {
		return address
	}
	username, _, hasPassword := strings.Cut(rest[:at], ":")
	if hasPassword {
		username += ":xxxxx"
	}
	return scheme + "://" + username + rest[at:]
}

func wrongAddress(address string, err error) error {
	return fmt.Errorf("address: %q is not allowed; it is <host>:<port>, redis://… or rediss://…: %w", redacted(address), err)
}

// addressed is how a client reaches the addresses, which have no placeholders left, and
// say the same but for where they are.
func (r *Redis) addressed(addresses []string) (o rueidis.ClientOption, err error) {
	var first *redisAddress
	for _, address := range addresses {
		a, err := parseRedisAddress(address)
		if err != nil {
			return o, wrongAddress(address, err)
		}
		o.InitAddress = append(o.InitAddress, a.hostPort)
		if first == nil {
			first = &a
		}
		switch {
		case a.encrypted != first.encrypted && r.TLS == nil:
			return o, fmt.Errorf("address: %q is not allowed beside %q; all are rediss://…, or none is, or there is an option tls", redacted(address), redacted(addresses[0]))
		case a.username != first.username || a.password != first.password || a.db != first.db:
			return o, fmt.Errorf("address: %q has another user, password or database than %q; all have the same: write them as options username and password", redacted(address), redacted(addresses[0]))
		case (a.username != "" || a.password != "") && (r.Username != "" || r.Password != ""):
			return o, fmt.Errorf("address: %q has a user or a password, and so have the options username and password; write them once", redacted(address))
		case a.db != 0 && len(r.Addresses) > 1 && r.Sentinel == "":
			return o, fmt.Errorf("address: %q has a database, but several addresses are those of a cluster, which has none; write the address without /%d", redacted(address), a.db)
		}
	}
	if first != nil {
		o.Username, o.Password, o.SelectDB = first.username, first.password, first.db
		if first.encrypted {
			o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12} // the name is that of each server
		}
	}
	return o, nil
}
