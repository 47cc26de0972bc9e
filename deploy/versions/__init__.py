"""Publish versions: the weights that are served, what an engine can serve, and parity between training and serving."""
