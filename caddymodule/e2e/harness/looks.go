package harness

import (
	"context"
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// noteProblem notes what a browser's console shows as an error.
func (tb *Tab) noteProblem(event any) {
	var problem string
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level != log.EntryLevelError && e.Entry.Level != log.EntryLevelWarning {
			return
		}
		problem = fmt.Sprintf("%s: %s", e.Entry.Text, e.Entry.URL)
	case *runtime.EventConsoleAPICalled:
		if e.Type != runtime.ConsoleAPICalledTypeError && e.Type != runtime.ConsoleAPICalledTypeWarning {
			return
		}
		problem = "console." + string(e.Type)
		for _, arg := range e.Args {
			problem += " " + string(arg.Value)
		}
	case *runtime.EventExceptionThrown:
		problem = e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			problem += " " + e.ExceptionDetails.Exception.Description
		}
	default:
		return
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.problems = append(tb.problems, problem)
}

// Problems are the errors and warnings that the console has shown since the last call.
func (tb *Tab) Problems() (problems []string) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	problems, tb.problems = tb.problems, nil
	return problems
}

// Press presses keys one after the other, as they come from a keyboard; those without a
// character are in package kb of chromedp.
func (tb *Tab) Press(t testing.TB, keys string) {
	t.Helper()
	require.NoError(t, chromedp.Do(tb.ctx, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		for _, key := range keys {
			if err := press(ctx, target, key); err != nil {
				return err
			}
		}
		return nil
	})))
}

// press has the browser make the character of the key's press, unless the page prevents
// that: chromedp sends characters on their own.
func press(ctx context.Context, target *chromedp.Target, key rune) error {
	steps := kb.Encode(key)
	for _, step := range steps {
		if step.Type == kb.KeyChar {
			steps[0].Type, steps[0].Text, steps[0].UnmodifiedText = kb.KeyDown, step.Text, step.UnmodifiedText
		}
	}
	for _, step := range steps {
		if step.Type == kb.KeyChar {
			continue
		}
		if _, err := cdp.Call(ctx, target, input.DispatchKeyEvent, *step); err != nil {
			return err
		}
	}
	return nil
}

// Look sets the size of the window, and the color scheme that its user prefers.
func (tb *Tab) Look(t testing.TB, width, height int64, scheme string) {
	t.Helper()
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
	require.NoError(t, chromedp.Do(tb.ctx, chromedp.EmulateViewport(width, height),
		chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, media)
			return err
		})))
}

// Screenshot is a PNG of what the window shows.
func (tb *Tab) Screenshot(t testing.TB) []byte {
	t.Helper()
	png, err := chromedp.Run(tb.ctx, chromedp.CaptureScreenshot())
	require.NoError(t, err)
	return png
}
