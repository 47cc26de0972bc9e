"""Capture interactions durably: a queue in front of the database, and a spool on disk for when it is away."""
