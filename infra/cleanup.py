"""Delete stale unfinished folders that killed processes left, once nobody will go on with them.

Every unfinished folder has a name that begins with a dot and becomes another name in one step when it is finished, so
what is swept was never read by anybody.
"""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

from infra.settings import Places

log = logging.getLogger(__name__)

DAYS = 3.0
"""Untouched for so long: far beyond the time within which an interrupted night is taken up again."""


def sweep(places: Places, *, days: float = DAYS) -> list[Path]:
    """Delete unfinished folders that nobody touched for ``days``; returns what went."""
    limit, swept = time.time() - days * 86_400, []
    for folder in (places.stages_dir, places.snapshots_dir, places.versions_dir, places.evaluations_dir):
        for left in sorted(folder.glob(".*")) if folder.is_dir() else ():
            if left.is_dir() and not left.is_symlink() and _touched(left) < limit:
                shutil.rmtree(left, ignore_errors=True)
                log.info("swept %s, untouched for more than %g days", left, days)
                swept.append(left)
    return swept


def _touched(folder: Path) -> float:
    """When anything in it was last written."""
    times = [folder.stat().st_mtime]
    for path in folder.rglob("*"):
        try:
            times.append(path.lstat().st_mtime)
        except FileNotFoundError:  # somebody works in it after all
            return time.time()
    return max(times)
