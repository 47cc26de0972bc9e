"""Thin Prefect skins over the packages below: run names, progress, artifacts, and retries where another try helps."""
