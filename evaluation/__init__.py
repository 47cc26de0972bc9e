"""Evaluate challengers: measure every version on the same items, and decide the verdict."""
