"""Locate the folder that holds Ratchet's packages, and let child processes import from it."""

from __future__ import annotations

import os
from pathlib import Path

SOURCE_ROOT = Path(__file__).resolve().parent.parent
"""Folder of the packages: a checkout, or site-packages of an installed wheel."""


def python_path(*more: str) -> str:
    """`PYTHONPATH` of a child process: this code first, then `more`, then what the environment says."""
    return os.pathsep.join(part for part in (str(SOURCE_ROOT), *more, os.environ.get("PYTHONPATH")) if part)
