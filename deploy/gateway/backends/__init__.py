"""Reach the serving engines: replicas, loading of adapters, and proof that a version is served as it was trained."""
