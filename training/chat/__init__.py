"""Render conversations by a model's chat template."""
