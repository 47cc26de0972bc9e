"""Show on the console the rows that were kept out of the lake, and accept or drop them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from deploy.api_keys import ApiKey
from feedback.lake.frames import QuarantineRow
from feedback.store.store import Store
from infra.errors import NotFound
from infra.settings import Config, Places

if TYPE_CHECKING:
    from deploy.gateway.console.mount import Decision


class HeldRows(Config):
    """Rows that wait for a decision, newest first."""

    total: int
    codes: Mapping[str, int]
    """How many for each reason, most first."""
    rows: tuple[QuarantineRow, ...]


def held(database: Engine, home: Path, tenant: str, code: str | None, limit: int) -> HeldRows:
    """List the rows that wait for a decision, newest first, with the number for every reason."""
    from feedback.lake.lake import lake_of
    from feedback.lake.quarantine import held_rows

    rows = held_rows(Store(database), lake_of(Places(home=home)), tenant=tenant)
    shown = [row for row in rows if code is None or row.code == code]
    return HeldRows(
        total=len(rows), codes=dict(Counter(row.code for row in rows).most_common()), rows=tuple(shown[:limit])
    )


def decide(database: Engine, home: Path, key: ApiKey, row_id: str, decision: str, request: Decision) -> str:
    """Accept or drop a row of the key's own tenant; return its id.

    Raises:
        NotFound: the tenant has no such row.
        UserError: it was decided before, or the correction does not fit.
    """
    from feedback.lake.lake import lake_of
    from feedback.lake.quarantine import accept, drop, show

    store, lake = Store(database), lake_of(Places(home=home))
    row = show(store, lake, row_id)
    if row.tenant != key.tenant:
        raise NotFound(f"no quarantined row {row_id!r}")
    by = f"console:{key.name}"
    if decision == "accept":
        return accept(store, lake, row.row_id, by=by, note=request.note, correction=request.correction).row_id
    return drop(store, lake, row.row_id, by=by, note=request.note).row_id
