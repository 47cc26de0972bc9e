"""Train: from a snapshot to an adapter or a model."""
