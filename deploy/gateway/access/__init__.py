"""Authenticate requests: API keys of tenants, their scopes and rate limits, cached for when the database is away."""
