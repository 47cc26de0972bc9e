"""Build what the repository holds beside the code."""
