"""Index what earlier batches contained (SQLite): signatures for duplicates, labels, votes, activity of accounts."""
