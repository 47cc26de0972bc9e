"""Trace answers, feedback, examples, snapshots and versions to what they were made of, and to what became of them."""
