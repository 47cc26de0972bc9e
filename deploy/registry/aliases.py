"""Sync the aliases champion, challenger and previous of MLflow's model registry with the ledger.

MLflow has no compare-and-set and may be down, so it is never asked what is live. What Ratchet last wrote to each alias
is kept in SQL (with the value it is about to write): an alias that holds neither was moved by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field
from sqlalchemy import Column, Engine, Integer, String, Table, delete, insert, select

from deploy.ledger.ledger import Entry, history
from deploy.ledger.state import ReleaseState
from deploy.registry.model_registry import VERSION_TAG, ModelRegistry, ModelVersion
from deploy.registry.version_page import SEQ_TAG, description, origin_tags, state_tags
from deploy.versions.versions import VersionFile
from infra.database.connect import UtcDateTime, begin_write, metadata, now
from infra.settings import Config

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
# What `pending` holds while an alias is being taken away; NULL means that nothing is pending.
_TAKEN_AWAY = ""
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)

written_aliases = Table(
    "registry_aliases",
    metadata,
    Column("tenant", String(200), primary_key=True),
    Column("alias", String(60), primary_key=True),
    Column("value", String(200)),
    Column("pending", String(200)),
    Column("seq", Integer, nullable=False),
    Column("written_at", UtcDateTime, nullable=False),
)


class ManualAliasMove(Config):
    """An alias that somebody else moved."""

    alias: str
    """champion, challenger or previous."""
    number: str | None = Field(alias="found")
    """MLflow's version number that it holds now; None: it was deleted."""
    version: str | None
    """Our version's name behind that number; None: not one of ours."""
    tags: Mapping[str, str] = {}
    """That model version's tags, where a person may have named an override."""
    last_written: str | None
    """The number that Ratchet wrote last."""


def desired_aliases(state: ReleaseState) -> dict[str, str | None]:
    """Return which version each alias should hold; the ledger's word."""
    return {
        CHAMPION: state.champion,
        CHALLENGER: state.canary or state.gated,
        PREVIOUS: state.previous,
    }


def manual_moves(database: Engine, registry: ModelRegistry, tenant: str) -> list[ManualAliasMove]:
    """Find aliases that hold neither what Ratchet wrote last nor what it was about to write.

    An alias that Ratchet never wrote and MLflow does not have is nobody's move.
    """
    aliases, written, moves = registry.aliases(), _written(database, tenant), []
    for alias in ALIASES:
        holds = aliases.get(alias)
        value, pending = written.get(alias, (None, None))
        if holds == value or (pending is not None and holds == (pending or None)):
            continue
        target = registry.version_of(holds) if holds is not None else None
        moves.append(
            ManualAliasMove(
                alias=alias,
                found=holds,
                version=target.version if target else None,
                tags=target.tags if target else {},
                last_written=value,
            )
        )
    return moves


def sync_aliases(
    database: Engine, registry: ModelRegistry, state: ReleaseState, files: Mapping[str, VersionFile]
) -> list[str]:
    """Make the aliases hold what the ledger says; returns those that were moved. Look for manual moves first.

    Args:
        files: our versions by name, for those not registered yet (the base model has none).

    Raises:
        Unavailable: MLflow did not answer; nothing is lost, the next call goes on.
    """
    aliases, known, moved = registry.aliases(), registry.registered(), []
    for alias, version in desired_aliases(state).items():
        if version is not None and version not in known:
            tags = state_tags(state, version)
            number = registry.register(version, files.get(version), tags)
            known[version] = ModelVersion(number, {VERSION_TAG: version, **tags})
        wanted = known[version].number if version is not None else None
        if aliases.get(alias) != wanted:
            written = _written(database, state.tenant).get(alias, (None, None))[0]
            _note(database, state, alias, value=written, pending=wanted or _TAKEN_AWAY)
            registry.set_alias(alias, wanted)
            moved.append(alias)
        _note(database, state, alias, value=wanted, pending=None)
    _sync_pages(registry, state, history(database, state.tenant), known)
    return moved


def _sync_pages(
    registry: ModelRegistry, state: ReleaseState, entries: Sequence[Entry], known: Mapping[str, ModelVersion]
) -> None:
    """Make the page of every version say what the ledger says, whether an alias was moved just now or not.

    So one that lost its alias does not go on saying that it is live, and what a kill left half written is mended at
    the next look. Only what differs is written; the ledger's place alone (`ratchet.seq`) is no reason to.
    """
    ours = state.pinned | set(state.barred) | set(state.champions) | {entry.version for entry in entries}
    for version in sorted(ours & set(known)):
        registered = known[version]
        tags = {**state_tags(state, version), **origin_tags(entries, version)}
        place = tags.pop(SEQ_TAG)
        changed = {name: value for name, value in tags.items() if registered.tags.get(name) != value}
        if changed or SEQ_TAG not in registered.tags:
            # The tags come last: as long as they differ, the next look writes all of it again.
            registry.describe(registered.number, description(entries, version))
            registry.set_tags(registered.number, {SEQ_TAG: place, **changed})


def _written(database: Engine, tenant: str) -> dict[str, tuple[str | None, str | None]]:
    with database.connect() as connection:
        rows = connection.execute(select(written_aliases).where(written_aliases.c.tenant == tenant))
        return {row.alias: (row.value, row.pending) for row in rows}


def _note(database: Engine, state: ReleaseState, alias: str, *, value: str | None, pending: str | None) -> None:
    here = (written_aliases.c.tenant == state.tenant) & (written_aliases.c.alias == alias)
    with begin_write(database) as connection:
        row = connection.execute(select(written_aliases).where(here)).first()
        if row is not None and (row.value, row.pending) == (value, pending):
            return
        connection.execute(delete(written_aliases).where(here))
        connection.execute(
            insert(written_aliases).values(
                tenant=state.tenant,
                alias=alias,
                value=value,
                pending=pending,
                seq=state.seq,
                written_at=now(),
            )
        )
