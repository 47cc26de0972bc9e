"""Analyse text: language, topics, vocabulary."""
