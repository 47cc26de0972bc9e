"""Thin Prefect skins over the packages below: retries, timeouts, artifacts."""
