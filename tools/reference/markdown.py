"""Write the Markdown that all generated pages share."""

from __future__ import annotations

HEAD = "<!-- Made from the code by `python -m tools.reference.reference`; edits here are lost. -->\n\n"


def cell(text: str) -> str:
    """Fit a text into a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
