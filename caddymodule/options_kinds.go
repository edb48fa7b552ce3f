package caddymodule

import (
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// The functions of this file complete the rows of the kinds of options that there
// are several of. What a row already has stays as it is.

// text completes an option of one word, or quoted text, that is not empty.
func text[T any](o option[T], field func(T) *string) option[T] {
	o.parse = func(target T, args []string) error {
		if strings.TrimSpace(args[0]) == "" {
			return fmt.Errorf("%s: %q is not allowed; write: %s", o.name, args[0], o.usage())
		}
		*field(target) = args[0]
		return nil
	}
	return o.filledBy(fillZero(field))
}

// word completes an option with a fixed set of values, which are its syntax.
func word[T any, V ~string](o option[T], field func(T) *V, allowed ...V) option[T] {
	o.syntax = join(allowed, "|")
	o.parse = func(target T, args []string) error {
		*field(target) = V(args[0])
		return nil
	}
	o.validate = func(target T) error { return oneOf(o.name, *field(target), allowed...) }
	return o.filledBy(fillZero(field))
}

// words completes an option of one or more words.
func words[T any](o option[T], field func(T) *[]string) option[T] {
	o.parse = func(target T, args []string) error {
		*field(target) = args
		return nil
	}
	return o
}

// toggle completes an option without arguments, which is on if it is given.
func toggle[T any](o option[T], field func(T) *bool) option[T] {
	o.parse = func(target T, _ []string) error {
		*field(target) = true
		return nil
	}
	return o
}

// duration completes an option of a duration. In JSON, 0 leaves it out.
func duration[T any](o option[T], least time.Duration, field func(T) *caddy.Duration) option[T] {
	o.syntax = "<duration>"
	o.parse = func(target T, args []string) (err error) {
		*field(target), err = parseDuration(o.name, args[0], least)
		return err
	}
	if o.validate == nil {
		o.validate = func(target T) error { return offOrAtLeast(o.name, field(target), least) }
	}
	return o.filledBy(fillZero(field))
}

// orZero lets a duration, whose default is 0, be given as that.
func orZero[T any](o option[T]) option[T] {
	parse := o.parse
	o.parse = func(target T, args []string) error {
		if given, err := caddy.ParseDuration(args[0]); err == nil && given == 0 {
			return nil
		}
		return parse(target, args)
	}
	return o
}

// durationOrOff completes an option of a duration that may be turned off, which
// is 0 in JSON; nil leaves it out.
func durationOrOff[T any](o option[T], field func(T) **caddy.Duration) option[T] {
	o.syntax = "<duration>|off"
	o.parse = func(target T, args []string) error {
		var d caddy.Duration
		if args[0] != "off" {
			var err error
			if d, err = parseDuration(o.name, args[0], leastLiveness); err != nil {
				return fmt.Errorf("%w, or off", err)
			}
		}
		*field(target) = &d
		return nil
	}
	o.validate = func(target T) error { return offOrAtLeast(o.name, *field(target), leastLiveness) }
	return o.filledBy(fillZero(field))
}

// filledBy lets fill set the option's default, if it has one.
func (o option[T]) filledBy(fill func(target, defaults T)) option[T] {
	if o.fill == nil && o.def != "" {
		o.fill = fill
	}
	return o
}

// fillZero fills a field that has no value.
func fillZero[T any, V comparable](field func(T) *V) func(target, defaults T) {
	return func(target, defaults T) { setDefault(field(target), *field(defaults)) }
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func fillTokens(h, defaults *Handler) {
	if len(h.Token) == 0 {
		h.Token = defaults.Token
	}
}

func fillClients(h, defaults *Handler) {
	if len(h.Client) == 0 {
		h.Client = defaults.Client
	}
}

// fillMissingKey keeps a token that lacks the claim it is counted by from evading
// its limit.
func fillMissingKey(h, defaults *Handler) {
	if h.keyHasClaims() {
		setDefault(&h.MissingKey, missingKeyDeny)
	}
	setDefault(&h.MissingKey, defaults.MissingKey)
}

func fillRetryRefused(h, defaults *Handler) {
	if h.RetryRefused == nil { // an empty list turns it off
		h.RetryRefused = defaults.RetryRefused
	}
}

func fillLimit(h, defaults *Handler) {
	setDefault(&h.Limit, defaults.Limit)
	setDefault(&h.LimitUnit, defaults.LimitUnit)
}
