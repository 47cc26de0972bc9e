"""Generate answers of every version to the same items, with a few-shot prompt baseline and parity."""
