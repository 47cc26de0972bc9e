"""Train: one room per training engine."""
