"""Keep what is to be written to MLflow in a file, in order, until MLflow took it.

The journal of a night is a file of JSON lines, one an operation (infra/telemetry/mlflow_operations.py). Beside it lie
how many of them were sent (`.sent`), why MLflow takes nothing (`.refused`), the ids of the runs (`.runs`), and a lock.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from infra.artifact import atomic_write
from infra.processes.locks import file_lock
from infra.telemetry.mlflow_operations import Operation, Tags
from infra.telemetry.mlflow_runs import RunIndex

NAME = "tracking.jsonl"
"""Name of every journal, in its night's folder."""
_CUT = Operation(run="", body=Tags({}))


class Journal:
    """The operations of one night, and how far they were sent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs = RunIndex(path.with_suffix(".runs"))
        self._sent = path.with_suffix(".sent")
        self._refusal = path.with_suffix(".refused")

    def locked(self) -> AbstractContextManager[None]:
        """Hold the journal's lock: nobody else writes or sends meanwhile."""
        return file_lock(self.path.with_suffix(".lock"))

    def append(self, operation: Operation) -> None:
        """Write one operation at the end."""
        with self.locked(), self.path.open("a", encoding="utf-8") as file:
            file.write(operation.to_json() + "\n")

    def pending(self) -> tuple[int, list[Operation]]:
        """How many operations were sent, and those that wait. One without a run stands for a line that was cut."""
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        except FileNotFoundError:
            return 0, []
        sent = int(self._sent.read_text()) if self._sent.exists() else 0
        return sent, [_parsed(line) for line in lines[sent:]]

    def set_sent(self, count: int) -> None:
        """Note how many operations were sent."""
        atomic_write(self._sent, str(count))

    def set_refusal(self, reason: str | None) -> None:
        """Note why MLflow takes nothing until a person mends it; None: it takes what it is given."""
        if reason is None:
            self._refusal.unlink(missing_ok=True)
        else:
            atomic_write(self._refusal, reason + "\n")

    def refusal(self) -> str | None:
        """Why MLflow takes nothing, as last noted."""
        try:
            return self._refusal.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None


def journals(folder: Path) -> list[Journal]:
    """All journals of the nights below ``folder``."""
    return [Journal(path) for path in sorted(folder.glob(f"*/{NAME}"))]


def refusals(folder: Path) -> dict[str, int]:
    """Why MLflow takes nothing from the journals below ``folder`` -> how many operations wait for that."""
    waiting: dict[str, int] = {}
    for journal in journals(folder):
        why = journal.refusal()
        count = len(journal.pending()[1]) if why is not None else 0
        if why is not None and count:
            waiting[why] = waiting.get(why, 0) + count
    return waiting


def _parsed(line: str) -> Operation:
    try:
        return Operation.from_json(line)
    except ValueError:
        # A line cut by a crash in the middle of a write: what it said is said again by the resumed night.
        return _CUT
