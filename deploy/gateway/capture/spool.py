"""Spool interactions to files on the gateway's own disk while the database is away, and land them later.

Each lot is a file of JSON lines, written beside its place, synced, and renamed there: a file is whole or not there.
Landing a lot twice changes nothing (interactions are unique by id), so a kill between landing and removing is harmless.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from feedback.events import Interaction
from infra.artifact import atomic_write
from infra.database.connect import now
from infra.errors import Unavailable

log = logging.getLogger(__name__)
_USUAL_BYTES = 65_536


class Spool:
    """Lots of interactions in a folder of one gateway.

    Args:
        max_bytes: most that may wait here; beyond it answers are refused rather than given and forgotten.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def put(self, lot: Sequence[Interaction]) -> None:
        """Return when the lot is on disk.

        Raises:
            Unavailable: no room.
            OSError: the disk refuses.
        """
        text = "".join(f"{interaction.model_dump_json()}\n" for interaction in lot)
        held = sum(file.stat().st_size for file in self._files())
        if held + len(text) > self._max_bytes:
            raise Unavailable(
                f"the database is away and {held} bytes wait in {self._folder} (limit {self._max_bytes}); "
                "bring the database back, or raise serving.spool_max_bytes"
            )
        # Names sort by time, so that what happened first lands first.
        atomic_write(self._folder / f"{now():%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}.jsonl", text)

    @property
    def waiting(self) -> int:
        """Lots that wait."""
        return len(self._files())

    @property
    def has_room(self) -> bool:
        """Whether at least one more lot of usual size fits, and the folder can be written."""
        held = sum(file.stat().st_size for file in self._files())
        folder = next((place for place in (self._folder, *self._folder.parents) if place.is_dir()), None)
        return held + _USUAL_BYTES <= self._max_bytes and folder is not None and os.access(folder, os.W_OK)

    def land(self, commit: Callable[[list[Interaction]], Iterable[Interaction] | None]) -> int:
        """Hand each lot, oldest first, to `commit` and remove it; returns how many interactions landed.

        What `commit` raises ends it; that lot stays. What it returns was refused one by one, and is set aside in a file
        named `.unreadable`, as is a file that cannot be read.
        """
        landed = 0
        for file in self._files():
            try:
                lot = [Interaction.model_validate_json(line) for line in file.read_text().split("\n") if line]
            except (ValidationError, UnicodeDecodeError) as error:
                # Not the error's words: they may quote what somebody said.
                log.error("%s cannot be read (%s) and is set aside", file, type(error).__name__)
                file.rename(file.with_suffix(".unreadable"))
                continue
            refused = list(commit(lot) or ())
            if refused:
                aside = file.with_suffix(".refused.unreadable")
                atomic_write(aside, "".join(f"{interaction.model_dump_json()}\n" for interaction in refused))
                log.error("%d interactions are refused by the database and set aside in %s", len(refused), aside)
            file.unlink()
            landed += len(lot) - len(refused)
        return landed

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.jsonl")) if self._folder.is_dir() else []
