"""Load, merge, convert and save weights."""
