"""Maintain the lake's tables (compaction, vacuum), and erase rows from them for good.

Snapshots are copies with hashes of their own, so nothing here can change one. Readers see whole versions of a table;
`maintain` leaves the files of versions younger than `keep_hours` alone, for whoever still reads them. `erase` does not:
what a person wants forgotten goes from every version, its values in the table's log (statistics) included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from feedback.lake.lake import TABLES, Lake
from infra.settings import Config

if TYPE_CHECKING:
    from deltalake import DeltaTable

_CHUNK = 300
_LOG_ENTRY = re.compile(r"(\d{20})\.(?:json|checkpoint(?:\..*)?\.parquet)")


class MaintenanceReport(Config):
    """What maintenance did, by table."""

    compacted: dict[str, int] = {}
    """Small files that were put together."""
    removed: dict[str, int] = {}
    """Files that no version needs any more."""
    files: dict[str, int] = {}
    """Files of the table as it stands now."""


def maintain(lake: Lake, *, keep_hours: int = 168) -> MaintenanceReport:
    """Put small files together, remove what only versions older than `keep_hours` need. Call with the lake locked."""
    compacted, removed, files = {}, {}, {}
    for name, table in _tables(lake):
        done = table.optimize.compact()
        compacted[name] = int(done.get("numFilesRemoved", 0))
        table.update_incremental()
        removed[name] = len(table.vacuum(retention_hours=keep_hours, dry_run=False, enforce_retention_duration=False))
        table.create_checkpoint()
        files[name] = len(table.file_uris())
    return MaintenanceReport(compacted=compacted, removed=removed, files=files)


def has_many_files(lake: Lake, most: int) -> bool:
    """Tell whether a table is in more than `most` files, which every reader opens."""
    return any(len(table.file_uris()) > most for _, table in _tables(lake))


def erase(lake: Lake, tenant: str, column: str, values: Sequence[str]) -> dict[str, int]:
    """Delete the rows of a tenant whose `column` is one of `values` from all tables that have it, in every version.

    Returns the rows deleted by table. Doing it again deletes nothing. Call with the lake locked.
    """
    deleted: dict[str, int] = {}
    for name, table in _tables(lake):
        if column not in {field.name for field in table.schema().fields}:
            continue
        deleted[name] = 0
        for start in range(0, len(values), _CHUNK):
            listed = ", ".join(_quoted(value) for value in values[start : start + _CHUNK])
            done = table.delete(f"tenant = {_quoted(tenant)} AND {column} IN ({listed})")
            deleted[name] += int(done.get("num_deleted_rows", 0) or 0)
    return deleted


def drop_history(lake: Lake) -> None:
    """Remove every file and log entry that is not needed for the tables as they stand. Call with the lake locked."""
    for name, table in _tables(lake):
        table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
        table.update_incremental()
        table.create_checkpoint()
        # Entries before a checkpoint are history; Delta's own clean-up waits for a month before it removes them.
        entries = {entry: _LOG_ENTRY.fullmatch(entry) for entry in lake.storage.log(name)}
        lake.storage.drop_log(name, [e for e, match in entries.items() if match and int(match[1]) < table.version()])


def _tables(lake: Lake) -> list[tuple[str, DeltaTable]]:
    tables = ((name, lake.table(name)) for name in TABLES)
    return [(name, table) for name, table in tables if table is not None]


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
