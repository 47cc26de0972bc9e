"""Render conversations by a model's chat template, and tokenise them with a loss mask."""
