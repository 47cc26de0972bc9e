"""Erase a person (data subject) from everything that ingest and snapshots made."""
