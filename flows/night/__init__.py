"""Run one night: whether to train, its steps, its record for resuming after a crash, re-scores, and its end."""
