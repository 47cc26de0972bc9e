"""Serve the HTTP routes: chat and models, arena, feedback, health and metrics."""
