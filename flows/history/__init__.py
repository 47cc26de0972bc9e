"""Trace lineage, read the lake, and list stored nights."""
