"""List what was quarantined, for a person to read, correct and release, or to drop for good.

A release gives the events another turn in the next ingest. What a person released counts as reviewed: it passes the
checks that held it and speaks as trusted people do. Decisions are kept; nothing is deleted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError
from sqlalchemy import Column, Connection, Engine, Index, String, Table, Text, UniqueConstraint, func, insert, select

from feedback.events import Feedback, Interaction, Value
from feedback.lake.frames import QuarantineRow
from feedback.lake.lake import Lake
from feedback.store.store import Store, feedback, feedback_ready, land_feedback, land_interactions, requeue
from infra.database.connect import UtcDateTime, begin_write, metadata, now
from infra.errors import NotFound, UserError
from infra.settings import in_a_line

_VALUE: TypeAdapter[Value] = TypeAdapter(Value)

quarantine_decisions = Table(
    "quarantine_decisions",
    metadata,
    Column("row_id", String(64), primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("decision", String(16), nullable=False),
    Column("by", String(200), nullable=False),
    Column("note", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

quarantine_releases = Table(
    "quarantine_releases",
    metadata,
    Column("tenant", String(200), nullable=False),
    Column("event_id", String(200), nullable=False),
    Column("row_id", String(64), nullable=False),
    Column("correction", Text),
    UniqueConstraint("tenant", "event_id"),
    Index("quarantine_releases_row", "row_id"),
)


def held_rows(
    store: Store, lake: Lake, *, tenant: str | None = None, code: str | None = None, decided: bool = False
) -> list[QuarantineRow]:
    """List rows in quarantine as things stand, those held last first; those a person decided on only with `decided`."""
    import polars as pl

    rows, fates = lake.scan("quarantine"), lake.scan("fates")
    if rows is None:
        return []
    if fates is not None:
        # A subject's latest batch says all there is to say of it; rows of unreadable files have no fate and stay.
        latest = fates.group_by("tenant", "subject").agg(pl.col("batch").max().alias("latest"))
        rows = rows.join(latest, on=["tenant", "subject"], how="left").filter(
            pl.col("latest").is_null() | (pl.col("latest") == pl.col("batch"))
        )
    if tenant is not None:
        rows = rows.filter(pl.col("tenant") == tenant)
    if code is not None:
        rows = rows.filter(pl.col("code") == code)
    frame = rows.sort("batch", "created_at", "row_id", descending=True).collect()
    known = set() if decided else _decided(store, lake, dict(zip(frame["row_id"], frame["batch"], strict=True)))
    names = list(QuarantineRow.model_fields)
    return [
        # A column that another release added, or did not have yet, holds nothing where it was not written.
        QuarantineRow.model_validate({n: tuple(r[n]) if n == "events" else r[n] for n in names if r.get(n) is not None})
        for r in frame.iter_rows(named=True)
        if r["row_id"] not in known
    ]


def show(store: Store, lake: Lake, row_id: str) -> QuarantineRow:
    """Return one row by its id, or by the beginning of its id.

    Raises:
        NotFound: there is none, or several begin so.
    """
    matching = [row for row in held_rows(store, lake, decided=True) if row.row_id.startswith(row_id)]
    if len({row.row_id for row in matching}) != 1:
        raise NotFound(
            f"{len(matching)} quarantined rows begin with {row_id!r}, expected one; "
            "list them with `ratchet quarantine list`"
        )
    return matching[0]


def accept(
    store: Store, lake: Lake, row_id: str, *, by: str, note: str = "", correction: Mapping[str, JsonValue] | None = None
) -> QuarantineRow:
    """Release a row: its events are ready again, reviewed, and with `correction` as their new value if one is given.

    For a row of a file that could not be read, `correction` is the event it should have been:
    `{"interaction": {...}}` and/or `{"feedback": {...}}`.

    Raises:
        NotFound: no such row.
        UserError: the row was decided on before, or the correction does not fit.
    """
    _undecided(store, lake, row_id)
    row = show(store, lake, row_id)
    fixed = _checked(row, correction)
    with begin_write(store.database) as connection:
        _decide(connection, row, "accept", by, note)
        for part in fixed:
            if isinstance(part, Interaction):
                land_interactions(connection, [part])
            elif not row.events:
                land_feedback(connection, [part])
        for event_id in row.events:
            connection.execute(
                quarantine_releases.delete().where(
                    quarantine_releases.c.tenant == row.tenant, quarantine_releases.c.event_id == event_id
                )
            )
            value = next((p.value.model_dump_json() for p in fixed if isinstance(p, Feedback)), None)
            connection.execute(
                insert(quarantine_releases),
                {"tenant": row.tenant, "event_id": event_id, "row_id": row.row_id, "correction": value},
            )
        requeue(connection, row.tenant, row.events)
    return row


def drop(store: Store, lake: Lake, row_id: str, *, by: str, note: str = "") -> QuarantineRow:
    """Decide that a row stays out. It remains in the lake's history but is listed no more.

    Raises:
        NotFound: no such row.
        UserError: it was decided on before.
    """
    _undecided(store, lake, row_id)
    row = show(store, lake, row_id)
    with begin_write(store.database) as connection:
        _decide(connection, row, "drop", by, note)
        released = quarantine_releases
        connection.execute(released.delete().where(released.c.row_id == row.row_id))  # it was released and held again
    return row


def releases(database: Engine, events: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str | None]:
    """Return which (tenant, event_id) pairs a person released, with the corrected value as JSON where there is one."""
    wanted: dict[str, set[str]] = {}
    for tenant, event_id in events:
        wanted.setdefault(tenant, set()).add(event_id)
    released: dict[tuple[str, str], str | None] = {}
    with database.connect() as connection:
        for tenant, ids in wanted.items():
            # Releases are few (people make them), so all of a tenant's are read rather than asking for each event.
            query = select(quarantine_releases.c.event_id, quarantine_releases.c.correction).where(
                quarantine_releases.c.tenant == tenant
            )
            released.update({(tenant, r[0]): r[1] for r in connection.execute(query) if r[0] in ids})
    return released


def _checked(row: QuarantineRow, correction: Mapping[str, JsonValue] | None) -> list[Interaction | Feedback]:
    if correction is None:
        if not row.events:
            raise UserError(
                f"row {row.row_id[:12]} of {row.subject} could not be read ({row.detail}); give the event it "
                "should have been as a correction, or mend the file and import it again"
            )
        return []
    try:
        if row.events:
            if len(row.events) != 1:
                raise UserError(f"row {row.row_id[:12]} holds {len(row.events)} events; a correction fits one only")
            held = Feedback.model_validate(_event(row), extra="allow")
            value = _VALUE.validate_python({"kind": held.kind, **correction}, extra="forbid")
            return [Feedback.model_validate({**held.model_dump(), "value": value}, extra="allow")]
        parts: list[Interaction | Feedback] = []
        if "interaction" in correction:
            parts.append(Interaction.model_validate(correction["interaction"], extra="forbid"))
        if "feedback" in correction:
            parts.append(Feedback.model_validate(correction["feedback"], extra="forbid"))
    except ValidationError as error:
        raise UserError(f"the correction does not fit: {in_a_line(error)}") from error
    if not parts:
        raise UserError("the correction has neither `interaction` nor `feedback`; expected at least one of them")
    for part in parts:
        if part.tenant != row.tenant:
            raise UserError(f"the correction is of tenant {part.tenant!r}, expected the row's own, {row.tenant!r}")
    return parts


def _event(row: QuarantineRow) -> Any:
    import json

    return json.loads(row.content)["feedback"]


def _undecided(store: Store, lake: Lake, row_id: str) -> None:
    """Refuse a row that was decided on: it may be listed no more, because its events have been dealt with anew."""
    table = quarantine_decisions
    query = select(table.c.row_id, table.c.decision, table.c.by).where(
        table.c.row_id.startswith(row_id, autoescape=True)
    )
    with store.database.connect() as connection:
        before = connection.execute(query).first()
    if before is not None and before.row_id not in {row.row_id for row in held_rows(store, lake)}:
        raise UserError(f"row {row_id[:12]} was decided before: {before.decision} by {before.by}")


def _decide(connection: Connection, row: QuarantineRow, decision: str, by: str, note: str) -> None:
    table = quarantine_decisions
    mine = table.c.row_id == row.row_id
    before = connection.execute(select(table.c.decision, table.c.by, table.c.at, table.c.note).where(mine)).first()
    if before is not None:  # it was released, and held again
        note = f"{note} (before: {before.decision} by {before.by}, {before.at:%Y-%m-%d %H:%M}: {before.note})".strip()
        connection.execute(table.delete().where(mine))
    values = {"row_id": row.row_id, "tenant": row.tenant, "decision": decision, "by": by, "note": note, "at": now()}
    connection.execute(insert(table), values)


def _decided(store: Store, lake: Lake, batches: Mapping[str, int]) -> set[str]:
    """Of rows, with the batch that held them, those that nothing is to be decided of: dropped, released, or released
    and on the way through the next ingest.

    A released row whose events had their turn and that the latest batch to deal with them holds all the same was held
    again, for the same reason: somebody else trusted says otherwise, say. It waits for a decision as any other.
    """
    last = lake.last()
    decisions, released = quarantine_decisions, quarantine_releases
    turn = func.max(feedback_ready.c.seq)
    query = (
        select(released.c.row_id, released.c.tenant, func.max(released.c.event_id).label("event_id"), turn)
        .join(
            feedback,
            (feedback.c.tenant == released.c.tenant) & (feedback.c.event_id == released.c.event_id),
        )
        .join(feedback_ready, feedback_ready.c.feedback_seq == feedback.c.seq)
        .group_by(released.c.row_id, released.c.tenant)
    )
    with store.database.connect() as connection:
        decided = set(connection.scalars(select(decisions.c.row_id)))
        accepted = set(connection.scalars(select(decisions.c.row_id).where(decisions.c.decision == "accept")))
        waited = [row for row in connection.execute(query) if row.row_id in accepted and row.row_id in batches]
    had_it = {(row.tenant, row.event_id): row.row_id for row in waited if row[3] <= (last.cursor if last else 0)}
    return decided - {row_id for event, row_id in had_it.items() if _dealt_with(lake, *event) == batches[row_id]}


def _dealt_with(lake: Lake, tenant: str, event_id: str) -> int:
    """The latest batch that an event had a fate in: by its own id, for an orphan that found home is filed elsewhere."""
    import polars as pl

    fates = lake.scan("fates")
    assert fates is not None
    mine = fates.filter((pl.col("tenant") == tenant) & (pl.col("event_id") == event_id))
    return int(mine.select(pl.col("batch").max()).collect().item() or 0)
