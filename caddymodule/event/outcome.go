package event

// Outcome is what became of a request for a stream.
type Outcome string

const (
	// OutcomeAdmitted is of a stream that holds its key, and OutcomeSuperseding of one for
	// which an older stream was superseded.
	OutcomeAdmitted    Outcome = "admitted"
	OutcomeSuperseding Outcome = "superseding"
	// OutcomeUntracked is of a stream that passes without holding a key.
	OutcomeUntracked Outcome = "untracked"
	// OutcomeRejected is that the key is full, and OutcomeParked that the newcomer waits
	// until it is free.
	OutcomeRejected Outcome = "rejected"
	OutcomeParked   Outcome = "parked"
	// OutcomeDamped is that the newcomer takes the key back again and again. It waits
	// until the key is free, unless too many do.
	OutcomeDamped Outcome = "damped"
	// OutcomeOutasked is that a request that was sent later has the key by now.
	OutcomeOutasked Outcome = "outasked"
	// OutcomeEntombed is that the client has shown the tombstone of an ended stream, and
	// is to stay away.
	OutcomeEntombed Outcome = "entombed"
	// OutcomeUnauthorized is that the token that is required, or a part of the key, is
	// missing, or that the token is not good.
	OutcomeUnauthorized Outcome = "unauthorized"
	// OutcomeDenied is that the token was good, and was logged out or revoked.
	OutcomeDenied Outcome = "denied"
	// OutcomeDraining is that the server stops.
	OutcomeDraining Outcome = "draining"
	// OutcomeUnavailable is that the guard cannot tell: the registry cannot be reached,
	// or keys to verify tokens with are not there.
	OutcomeUnavailable Outcome = "unavailable"
)

// Outcomes has all outcomes.
var Outcomes = []Outcome{
	OutcomeAdmitted, OutcomeSuperseding, OutcomeUntracked, OutcomeRejected, OutcomeParked, OutcomeDamped,
	OutcomeOutasked, OutcomeEntombed, OutcomeUnauthorized, OutcomeDenied, OutcomeDraining, OutcomeUnavailable,
}

// Proof is what a probe has shown.
type Proof string

const (
	// ProofLives: the client has acknowledged something.
	ProofLives Proof = "lives"
	// ProofUnknown: it cannot be told, or who asked did not wait. The client is taken to
	// live.
	ProofUnknown Proof = "unknown"
	// ProofLeft: the client, or the stream, is gone.
	ProofLeft Proof = "left"
	// ProofDead: the client has not acknowledged anything in time. Its stream ends.
	ProofDead Proof = "dead"
)

// Proofs has all of them.
var Proofs = []Proof{ProofLives, ProofUnknown, ProofLeft, ProofDead}

// Lives reports whether the client is taken to live.
func (p Proof) Lives() bool { return p == ProofLives || p == ProofUnknown }
