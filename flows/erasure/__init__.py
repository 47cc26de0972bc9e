"""Erase a person (right to be forgotten) from store, lake, files, and MLflow."""
