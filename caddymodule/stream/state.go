package stream

import (
	"sync"
	"sync/atomic"
)

// state is where a response stands. Later states have higher numbers: a response
// never goes back.
type state uint32

const (
	// stateNone is no state: the zero move.
	stateNone state = iota
	// stateAsked: the upstream has the request, and no header has come. There may be
	// a Stream already.
	stateAsked
	// stateEndsAtHeader: as stateAsked, but the stream was told to end.
	stateEndsAtHeader
	// stateLeft: the client went away before the header.
	stateLeft
	// statePassing: the answer is no stream, and goes through untouched.
	statePassing
	// stateOpening: the header of an admitted stream is on its way outward.
	stateOpening
	// stateParked: the guard itself keeps the response open until the key is free.
	stateParked
	// stateLive: the stream is relayed.
	stateLive
	// stateEnding: the stream was told to end, and the place where it can end is not
	// reached: its header is on its way, or an event is partly sent.
	stateEnding
	// stateRefused: what the handlers write is thrown away. The guard answers when
	// they have returned.
	stateRefused
	// stateUnwound: as stateRefused, but the client is gone.
	stateUnwound
	// stateClosed: nothing more of the upstream's goes to the client, and the
	// upstream's request is canceled. The handlers have not returned.
	stateClosed
	// stateOverdue: as stateClosed, Config.EndTimeout after the end.
	stateOverdue
	// stateAborted: as stateOverdue, but the place where the stream could end was never
	// reached: an event is partly sent, or the client took nothing in.
	stateAborted
	// stateFinishing: the handlers have returned, and the rest is being written.
	stateFinishing
	// stateGone: all is over, and the writer must not be touched any more.
	stateGone

	states
)

// occurrence is what can happen to a response.
type occurrence uint8

const (
	// onJudgedPass, onJudgedRefuse and onJudgedAdmit: the gate has judged the header.
	onJudgedPass occurrence = iota
	onJudgedRefuse
	onJudgedAdmit
	// onOpened: the header of an admitted stream was handed outward.
	onOpened
	// onEnd: somebody ends the stream.
	onEnd
	// onBoundary: a stream that was told to end stands between two events.
	onBoundary
	// onKeyFree: a parked newcomer may come back.
	onKeyFree
	// onClientLeft: the client's request was canceled by itself.
	onClientLeft
	// onOuterEnd: the client's request was canceled since a guard further out has
	// ended, or refused, the stream.
	onOuterEnd
	// onWriteFailed: what was written did not reach the client.
	onWriteFailed
	// onTimeout: the end timer has fired.
	onTimeout
	// onReturned: the handlers behind the guard have returned, or the waiting of a
	// parked newcomer is over.
	onReturned
	// onFinished: what was left to write is written.
	onFinished

	occurrences
)

// effect is what a move demands. An effect that is about a Stream does nothing
// where there is none.
type effect uint8

const (
	// doCancel ends the upstream's request with context.Canceled, and doCancelAsClient
	// with the client's own error: an io.EOF would look like a failure of the
	// upstream's.
	doCancel effect = iota
	doCancelAsClient
	// doCancelAsEOF ends it with io.EOF, as if its body had ended.
	doCancelAsEOF
	// doUnwind panics with http.ErrAbortHandler: reverse_proxy would find its context
	// canceled in mid-body, and log that.
	doUnwind
	// doAnswerLeft writes the status of a client that left, for the access log.
	doAnswerLeft
	// doLeave gives the place back. doKeep does too, or keeps it for the client,
	// which has left by itself.
	doLeave
	doKeep
	// doNoteLeft notes that the client left by itself.
	doNoteLeft
	// doDeparted tells the registry that the upstream's request is gone.
	doDeparted
	// doWatch has the stream visited, and its connection watched. doUnvisit ends the
	// visits, and doUnwatch both.
	doWatch
	doUnvisit
	doUnwatch
	// doStartTimer has onTimeout happen after Config.EndTimeout.
	doStartTimer
	// doSettle ends the stream from a goroutine of its own if it stands between two
	// events.
	doSettle
	// doNotice tells the client why its stream ends. doLastNotice does so unless an
	// event is partly sent.
	doNotice
	doLastNotice
	// doTellReturn tells a parked client when to come back.
	doTellReturn
	// doFlushHeld sends what is held of an unfinished event.
	doFlushHeld
	// doCutIfStuck cuts the client off if it takes nothing in; else the timer starts
	// again. doCut cuts it off in any case.
	doCutIfStuck
	doCut
	// doForget is the last: nothing happens to the stream any more.
	doForget
)

type move struct {
	to state
	do []effect // in this order, after all locks were released
}

// moves is the whole life of a response. What is not listed changes nothing.
var moves = [states][occurrences]move{
	stateAsked: {
		onJudgedPass:   {statePassing, []effect{doLeave, doDeparted, doForget}},
		onJudgedRefuse: {stateRefused, []effect{doCancelAsEOF, doLeave}},
		onJudgedAdmit:  {stateOpening, nil},
		onEnd:          {stateEndsAtHeader, []effect{doLeave}},
		onClientLeft:   {stateLeft, []effect{doCancelAsClient, doLeave}},
		onOuterEnd:     {stateLeft, []effect{doCancel, doLeave}},
		onReturned:     {stateFinishing, []effect{doLeave, doDeparted}},
	},
	stateEndsAtHeader: {
		onJudgedPass:   {statePassing, []effect{doDeparted, doForget}},
		onJudgedRefuse: {stateRefused, []effect{doCancelAsEOF}},
		onJudgedAdmit:  {stateEnding, nil},
		onClientLeft:   {stateLeft, []effect{doCancelAsClient}},
		onOuterEnd:     {stateLeft, []effect{doCancel}},
		onReturned:     {stateFinishing, []effect{doDeparted}},
	},
	stateLeft: {
		onJudgedPass:   {statePassing, []effect{doDeparted, doForget}},
		onJudgedRefuse: {stateUnwound, []effect{doUnwind}},
		onJudgedAdmit:  {stateUnwound, []effect{doUnwind}},
		onReturned:     {stateFinishing, []effect{doDeparted}},
	},
	statePassing: {
		onClientLeft: {statePassing, []effect{doCancelAsClient}},
		onOuterEnd:   {statePassing, []effect{doCancelAsClient}},
		onReturned:   {stateGone, nil},
	},
	stateOpening: {
		onOpened:     {stateLive, []effect{doWatch}},
		onEnd:        {stateEnding, []effect{doLeave}},
		onClientLeft: {stateClosed, []effect{doNoteLeft, doCancelAsEOF, doKeep}},
		onOuterEnd:   {stateClosed, []effect{doCancelAsEOF, doLeave}},
		onReturned:   {stateFinishing, []effect{doLeave, doDeparted}},
	},
	stateParked: {
		onEnd:         {stateEnding, []effect{doStartTimer, doSettle}},
		onKeyFree:     {stateClosed, []effect{doTellReturn}},
		onClientLeft:  {stateClosed, []effect{doNoteLeft}},
		onOuterEnd:    {stateClosed, nil},
		onWriteFailed: {stateClosed, []effect{doNoteLeft}},
		onReturned:    {stateFinishing, nil},
	},
	stateLive: {
		// The place is free before the client is told, and may come back.
		onEnd:         {stateEnding, []effect{doLeave, doStartTimer, doSettle}},
		onClientLeft:  {stateClosed, []effect{doNoteLeft, doCancelAsEOF, doKeep, doUnvisit}},
		onOuterEnd:    {stateClosed, []effect{doCancelAsEOF, doLeave, doUnvisit}},
		onWriteFailed: {stateClosed, []effect{doNoteLeft, doCancelAsEOF, doKeep, doUnvisit}},
		onReturned:    {stateFinishing, []effect{doLeave, doDeparted, doFlushHeld}},
	},
	stateEnding: {
		onOpened:      {stateEnding, []effect{doStartTimer, doSettle}},
		onBoundary:    {stateClosed, []effect{doNotice, doCancelAsEOF, doUnvisit}},
		onClientLeft:  {stateClosed, []effect{doNoteLeft, doCancelAsEOF, doUnvisit}},
		onOuterEnd:    {stateClosed, []effect{doCancelAsEOF, doUnvisit}},
		onWriteFailed: {stateClosed, []effect{doNoteLeft, doCancelAsEOF, doUnvisit}},
		onTimeout:     {stateAborted, []effect{doCancelAsEOF, doCutIfStuck, doUnvisit}},
		onReturned:    {stateFinishing, []effect{doDeparted, doLastNotice}},
	},
	stateRefused: {
		onReturned: {stateFinishing, []effect{doDeparted}},
	},
	stateUnwound: {
		onReturned: {stateFinishing, []effect{doDeparted, doAnswerLeft}},
	},
	stateClosed: {
		onTimeout:  {stateOverdue, []effect{doCancelAsEOF, doCutIfStuck}},
		onReturned: {stateFinishing, []effect{doDeparted}},
	},
	stateOverdue: {
		onTimeout:  {stateOverdue, []effect{doCut}},
		onReturned: {stateFinishing, []effect{doDeparted}},
	},
	stateAborted: {
		onTimeout:  {stateAborted, []effect{doCut}},
		onReturned: {stateFinishing, []effect{doDeparted}},
	},
	stateFinishing: {
		onEnd:      {stateFinishing, []effect{doStartTimer}},
		onTimeout:  {stateFinishing, []effect{doCutIfStuck}},
		onFinished: {stateGone, []effect{doUnwatch, doForget}},
	},
	stateGone: {},
}

// life is the state of one response.
type life struct {
	// mu guards writes of state, and what else says that it does. It is held for an
	// instant: only the lock of a wheel is taken with it held, and a timer set.
	mu sync.Mutex
	// state is written with mu held. It may be read without.
	state atomic.Uint32
	// running counts the moves out of states before stateFinishing whose effects are
	// still being run. It goes up with mu held, so who waits for it in stateFinishing
	// waits for all of them.
	running sync.WaitGroup
}

// due is the effects of a move, which whoever has made it is to run, once it holds
// no lock.
type due struct {
	do    []effect
	ended *sync.WaitGroup // nil: nobody waits for them
}

// done says that the effects were run.
func (d due) done() {
	if d.ended != nil {
		d.ended.Done()
	}
}

func (l *life) now() state { return state(l.state.Load()) }

// happen has o happen. It returns the state before.
func (l *life) happen(o occurrence) (from state, d due) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.locked(o)
}

// locked is happen for who holds mu.
func (l *life) locked(o occurrence) (from state, d due) {
	from = l.now()
	m := &moves[from][o]
	if m.to == stateNone {
		return from, due{}
	}
	l.state.Store(uint32(m.to))
	d.do = m.do
	if from < stateFinishing && len(m.do) > 0 {
		l.running.Add(1)
		d.ended = &l.running
	}
	return from, d
}

// beforeHeader reports whether no final header has come.
func (s state) beforeHeader() bool {
	return s == stateAsked || s == stateEndsAtHeader || s == stateLeft
}

// relays reports whether what the upstream sends goes to the client.
func (s state) relays() bool { return s == stateLive || s == stateEnding }

// unended reports whether there is a stream, or will be unless something else
// happens.
func (s state) unended() bool { return s == stateAsked || s == stateOpening || s == stateLive }

// over reports whether nothing more of the upstream's, or of a parked newcomer's
// heartbeats, goes to the client.
func (s state) over() bool {
	return s == stateLeft || s == statePassing || s >= stateRefused
}
