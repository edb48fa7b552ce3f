package due

// Fire does what the timer does.
func (s *Sweeper) Fire() { s.sweep() }
