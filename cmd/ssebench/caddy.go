package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

// serverName is the one HTTP server of the configuration.
const serverName = "bench"

// object is a JSON object.
type object = map[string]any

// caddyConfig is the configuration of a Caddy: reverse_proxy to upstream, behind that
// guard, or none. What Caddy stores goes to the directory storage.
func caddyConfig(guard object, upstream, storage string) ([]byte, error) {
	handlers := []object{{
		"handler":   "reverse_proxy",
		"upstreams": []object{{"dial": upstream}},
		"transport": object{"protocol": "http", "dial_timeout": patience.String()}, // on a busy machine 3 s are short
	}}
	if guard != nil {
		handlers = append([]object{guard}, handlers...)
	}
	return json.MarshalIndent(object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{"level": "ERROR"}}},
		"storage": object{"module": "file_system", "root": storage},
		"apps": object{"http": object{"servers": object{serverName: object{
			"listen":          []string{"127.0.0.1:0"},
			"protocols":       []string{"h1"},
			"automatic_https": object{"disable": true},
			"routes":          []object{{"handle": handlers}},
		}}}},
	}, "", "\t")
}

// runCaddy is a Caddy with the configuration in configFile. With a file name
// for it, it writes a CPU profile of its whole life.
func runCaddy(configFile, cpuProfile string, in io.Reader, out io.Writer) (err error) {
	config, err := os.ReadFile(configFile)
	if err != nil {
		return fmt.Errorf("caddy: %w", err)
	}
	if cpuProfile != "" {
		stop, startErr := startProfile(cpuProfile)
		if startErr != nil {
			return startErr
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	if err := caddy.Load(config, false); err != nil {
		return fmt.Errorf("caddy: loading %s: %w", configFile, err)
	}
	address, err := listenAddress()
	if err != nil {
		return err
	}
	return serveControl(address, in, out)
}

func startProfile(name string) (stop func() error, err error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("CPU profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("CPU profile: %w", err), f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// listenAddress finds the port that the system chose.
func listenAddress() (string, error) {
	app, err := caddy.ActiveContext().AppIfConfigured("http")
	if err != nil {
		return "", fmt.Errorf("caddy: %w", err)
	}
	srv := app.(*caddyhttp.App).Servers[serverName]
	if srv == nil || len(srv.Listeners()) != 1 {
		return "", errors.New("caddy: expected one listener")
	}
	return srv.Listeners()[0].Addr().String(), nil
}
