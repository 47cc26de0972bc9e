"""Run an ingest and import files, with their alerts."""
