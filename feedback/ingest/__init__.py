"""Ingest feedback, a batch at a time: prepare, resolve against the index, commit to the lake, exactly once."""
