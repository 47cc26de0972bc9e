"""Restrict files and folders to their owner: they hold what people said, and secrets.

`close_files` belongs at the start of every program of ours; what a program starts inherits it. Whatever is left open by
an older release lies below `places.home`, so closing that one folder closes all of it.
"""

from __future__ import annotations

import os
from pathlib import Path

OTHERS = 0o077
"""The bits of a mode that let others in."""


def close_files() -> None:
    """Set the umask: from now on files of this process get mode 0600 and folders 0700."""
    os.umask(OTHERS)


def close_folder(folder: Path) -> None:
    """Make a folder, or one that exists, accessible to its owner only.

    One that belongs to somebody else stays as it is, such as the root of a volume that an orchestrator mounts;
    `ratchet doctor` says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_mode & OTHERS and status.st_uid == os.geteuid():
        folder.chmod(0o700)


def open_to_others(path: Path) -> bool:
    """Whether others of this machine may look into a file or folder."""
    return bool(path.stat().st_mode & OTHERS)
