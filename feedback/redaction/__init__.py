"""Redact personal data and secrets: patterns, national ids, presidio."""
