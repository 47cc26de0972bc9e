"""Wrap the packages below as Prefect tasks: run names, progress, artifacts, and retries where another try helps."""
