"""Serve the console: one page for operators and reviewers, and the API below it. Plain files, no build step."""
