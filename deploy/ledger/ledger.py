"""Append to and read the ledger of releases: compare-and-set, the truth that registry and gateways follow.

An entry is written only if the tenant's last one is the one its writer had read: two promoters cannot both win.
Nothing here updates or deletes, and the database refuses it too (triggers, made by the first revision of the tables).

    from deploy.ledger.ledger import Entry, append, current
    state = current(database, "default")
    append(database, Entry(tenant="default", action="paused", ...), expected_seq=state.seq)
"""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import ValidationError
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError

from deploy.ledger.state import (
    ACTIONS,
    UNREADABLE,
    Action,
    Entry,
    RefusedTransition,
    ReleaseState,
    UnknownAction,
    Watch,
)
from deploy.ledger.transitions import apply, release_state
from infra.database.connect import UtcDateTime, begin_write, metadata
from infra.errors import Conflict
from infra.settings import in_a_line

__all__ = [
    "Action",
    "Entry",
    "RefusedTransition",
    "ReleaseState",
    "Watch",
    "append",
    "append_in",
    "current",
    "current_in",
    "history",
    "last_seq",
    "last_seqs",
    "releases",
    "tenants",
]

releases = Table(
    "releases",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(200), nullable=False),
    Column("tenant_seq", Integer, nullable=False),
    Column("action", String(20), nullable=False),
    Column("version", String(200), nullable=False),
    Column("previous", String(200)),
    Column("share", Float),
    Column("actor", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", JSON, nullable=False),
    # Copied out of the evidence so that the database itself keeps "once a night".
    Column("night_id", String(200)),
    Column("at", UtcDateTime, nullable=False),
    UniqueConstraint("tenant", "tenant_seq", name="uq_releases_tenant_seq"),
    UniqueConstraint("tenant", "action", "night_id", name="uq_releases_night"),
    sqlite_autoincrement=True,
)


def append(database: Engine, entry: Entry, expected_seq: int) -> Entry:
    """Append one entry if the tenant's last one is still `expected_seq` (`ReleaseState.seq`; 0 before the first).

    An entry of the same tenant, action and night that stands already is returned as it is, whatever is expected.

    Raises:
        Conflict: somebody else wrote first; read the state again and decide anew.
        RefusedTransition: the entry does not follow from the state.
    """
    try:
        with begin_write(database) as connection:
            return append_in(connection, entry, expected_seq)
    except IntegrityError as error:
        raise _lost(entry, expected_seq) from error


def append_in(connection: Connection, entry: Entry, expected_seq: int) -> Entry:
    """Like `append`, inside the caller's transaction: an alert or a second entry is written with it or not at all.

    On Postgres a lost race shows as sqlalchemy's IntegrityError when two transactions overlap; `append` and
    `deploy.release.lifecycle` turn it into Conflict.
    """
    entry = Entry.model_validate(entry.model_dump(mode="json"))  # evidence must be JSON; fail before writing
    if entry.action not in ACTIONS:
        raise UnknownAction(
            f"{entry.action!r} is no action of the ledger; expected one of {', '.join(sorted(ACTIONS))}"
        )
    if entry.night_id is not None:
        written = connection.execute(
            select(releases).where(
                releases.c.tenant == entry.tenant,
                releases.c.action == entry.action,
                releases.c.night_id == entry.night_id,
            )
        ).first()
        if written is not None:
            return _entry(written)
    state = current_in(connection, entry.tenant)
    if state.seq != expected_seq:
        raise _lost(entry, expected_seq, state.seq)
    apply(state, entry)
    values = entry.model_dump(mode="json", exclude={"seq", "tenant_seq", "at"})
    result = connection.execute(
        insert(releases).values(**values, tenant_seq=state.tenant_seq + 1, night_id=entry.night_id, at=entry.at)
    )
    assert result.inserted_primary_key is not None
    return entry.model_copy(update={"seq": result.inserted_primary_key[0], "tenant_seq": state.tenant_seq + 1})


def history(database: Engine, tenant: str, *, after_seq: int = 0) -> list[Entry]:
    """Read a tenant's entries in ledger order, those after `after_seq`.

    An entry that another release wrote is there as it stands; one whose columns do not even fit has the action
    "unreadable". Neither can be decided on (`current` refuses), and both can be looked at.
    """
    with database.connect() as connection:
        return _history_in(connection, tenant, after_seq)


def current(database: Engine, tenant: str) -> ReleaseState:
    """Return the tenant's release state now."""
    with database.connect() as connection:
        return current_in(connection, tenant)


def current_in(connection: Connection, tenant: str) -> ReleaseState:
    """Like `current`, as the caller's transaction sees it."""
    return release_state(_history_in(connection, tenant, 0), tenant=tenant)


def tenants(database: Engine) -> list[str]:
    """List every tenant with an entry in the ledger."""
    with database.connect() as connection:
        return list(connection.scalars(select(releases.c.tenant).distinct().order_by(releases.c.tenant)))


def last_seq(database: Engine, tenant: str | None = None) -> int:
    """Return the place of the last entry (of a tenant, or of all): a cheap question for pollers. 0 when there is none.

    Over all tenants it may rise before an entry with a lower number is visible (Postgres hands out numbers before
    commit), so what must not miss an entry asks per tenant, where numbers and commits have one order.
    """
    query = select(func.max(releases.c.seq))
    if tenant is not None:
        query = query.where(releases.c.tenant == tenant)
    with database.connect() as connection:
        return connection.scalar(query) or 0


def last_seqs(database: Engine) -> dict[str, int]:
    """Return each tenant's last place, in one query: what gateways with many tenants ask several times a second."""
    with database.connect() as connection:
        rows = connection.execute(select(releases.c.tenant, func.max(releases.c.seq)).group_by(releases.c.tenant))
        return {row[0]: row[1] for row in rows}


def _history_in(connection: Connection, tenant: str, after_seq: int) -> list[Entry]:
    query = (
        select(releases).where(releases.c.tenant == tenant, releases.c.seq > after_seq).order_by(releases.c.tenant_seq)
    )
    try:
        rows = connection.execute(query).all()
    except (ValueError, TypeError, ArithmeticError):  # a value that its column's type does not know
        return _one_by_one(connection, tenant, after_seq)
    return [_entry(row) for row in rows]


def _one_by_one(connection: Connection, tenant: str, after_seq: int) -> list[Entry]:
    """The same entries where one of them spoils the reading of all."""
    places = connection.scalars(
        select(releases.c.seq)
        .where(releases.c.tenant == tenant, releases.c.seq > after_seq)
        .order_by(releases.c.tenant_seq)
    ).all()
    entries = []
    for seq in places:
        try:
            row = connection.execute(select(releases).where(releases.c.seq == seq)).one()
            entries.append(_entry(row))
        except (ValueError, TypeError, ArithmeticError) as error:
            plain = select(releases.c.tenant_seq, releases.c.action, releases.c.version)
            found = connection.execute(plain.where(releases.c.seq == seq)).one()
            entries.append(_unreadable(seq, tenant, found.tenant_seq, found.version, f"{found.action}: {error}"))
    return entries


def _entry(row: Row[tuple[object, ...]]) -> Entry:
    values = dict(row._mapping)
    del values["night_id"]
    try:
        return Entry.model_validate(values)
    except ValidationError as error:
        why = f"{values['action']}: {in_a_line(error)}"
        return _unreadable(values["seq"], values["tenant"], values["tenant_seq"], values["version"], why)


def _unreadable(seq: int, tenant: object, tenant_seq: int, version: object, why: str) -> Entry:
    return Entry(
        seq=seq,
        tenant=str(tenant),
        tenant_seq=tenant_seq,
        action=UNREADABLE,
        version=str(version),
        actor="-",
        reason=why[:1000],
        at=datetime(1970, 1, 1, tzinfo=UTC),
    )


def _lost(entry: Entry, expected: int, last: int | None = None) -> Conflict:
    came_first = "another line came first" if last is None else f"its last line is {last}"
    return Conflict(
        f"{entry.action} of {entry.version} was decided on line {expected} of tenant {entry.tenant!r}, but "
        f"{came_first}; "
        "read the ledger again and decide anew"
    )
