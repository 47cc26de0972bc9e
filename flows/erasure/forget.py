"""Forget a person: their rows go from everywhere, what held them is named and marked, and a search proves it.

ratchet forget --user ID [--dry-run]
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.experiments.arena import forget_pairs
from deploy.experiments.shadow import forget_shadows
from deploy.ledger.ledger import current
from feedback.erasure.belongings import Belongings, find_belongings, join_belongings
from feedback.erasure.lake import erase_data_docs, erase_from_lake
from feedback.erasure.snapshots import TOMBSTONE, erase_from_snapshots
from feedback.erasure.store import erase_from_store
from feedback.ingest.run import locked
from feedback.lake.lake import Lake, lake_of
from feedback.lake.orphans import orphaned_events
from feedback.redaction.redact import finder_of
from feedback.sources.erasure import erase_at_sources, out_of_reach, own_stores
from feedback.store.store import Store
from feedback.store.tombstones import Tombstone, name_hash, tombstones
from feedback.store.user_salt import SALT, pseudonym, verify_salt
from flows.config.pipeline import PipelineConfig
from flows.erasure.holders import Holders, find_holders
from flows.erasure.mlflow_copies import forget_traces, scrub_copies
from flows.erasure.redact_files import scrub, search
from flows.erasure.replacement import alert_in_use, live_versions, replacement_plan
from flows.erasure.report import ErasurePreview, ErasureReport
from flows.night.lock import lock_nights
from flows.night.record import abandon_nights
from infra.artifact import atomic_write
from infra.database.connect import begin_write, now
from infra.database.schema import create_tables
from infra.errors import NotFound, UserError
from infra.settings import Places, secret

_PSEUDONYM = re.compile(r"u-[0-9a-f]{24}")


@dataclass
class Erasure:
    """One person's erasure under way: where they are looked for, what is theirs, and what was removed so far."""

    config: PipelineConfig
    store: Store
    lake: Lake
    apart: Mapping[str, Store]
    """Stores of events that sources have for themselves, by source."""
    user: str | None
    """The id that applications send, where it is known."""
    belongings: Belongings
    removed: dict[str, int] = field(default_factory=dict)
    """Rows removed, by place."""
    searched: int = 0
    """Files searched on an MLflow server elsewhere."""
    left: list[str] = field(default_factory=list)
    """Files there in which something was still found."""

    @property
    def tenant(self) -> str:
        return self.belongings.tenant

    @property
    def mark(self) -> str:
        """Hash of the person's pseudonym: all that is kept of them."""
        return name_hash(self.tenant, self.belongings.person)

    def take_from_files(self) -> None:
        """Remove the person from reports, answers, logs, caches, traces, and copies on MLflow."""
        places, belongings = self.config.places, self.belongings
        self.removed["data docs"] = erase_data_docs(self.lake, belongings)
        leave = [self.lake.path / table for table in ("accepted", "quarantine", "fates")]
        leave += [places.snapshots_dir, places.versions_dir, places.run_dir]
        self.removed |= scrub(places.home_dir, belongings, leave=leave)
        self.removed |= _clear_caches(places) | erase_at_sources(self.config.ingest.sources, self.user)
        self.removed["traces of this pipeline"] = forget_traces(places, self.config.pipeline, belongings)
        copies, self.searched, self.left = scrub_copies(places, self.config.pipeline, belongings)
        self.removed |= copies

    def mark_trained(self, holders: Holders) -> None:
        """Put a tombstone beside the stages and versions that learned from the person's rows."""
        places = self.config.places
        stone = {"tenant": self.tenant, "person": self.mark, "at": now().isoformat()}
        folders = [places.versions_dir / version for version in holders.versions]
        for folder in [*folders, *(places.stages_dir / key for key in holders.stages)]:
            atomic_write(folder / TOMBSTONE, json.dumps(stone, indent=2) + "\n")

    def take_from_stores(self, holders: Holders, *, by: str, reason: str) -> None:
        """Delete the person's rows from the SQL stores, and write the record that stays."""
        belongings, store = self.belongings, self.store
        create_tables(store.database)  # a pipeline that never had shadows or an arena has no tables for them
        with begin_write(store.database) as connection:
            self.removed["shadow answers"] = forget_shadows(connection, self.tenant, belongings.interactions)
            self.removed["arena pairs"] = forget_pairs(connection, self.tenant, belongings.interactions)
        stone = Tombstone(
            tenant=self.tenant,
            person=self.mark,
            removed={name: rows for name, rows in self.removed.items() if rows},
            snapshots=holders.snapshots,
            versions=holders.versions,
            by=by,
            reason=reason,
            at=now(),
        )
        for name, other in self.apart.items():  # before ours, by which an interrupted call is begun again
            rows = erase_from_store(other, belongings, stone, self.user)
            self.removed[name] = sum(rows.values())
        again = orphaned_events(self.lake, self.tenant)
        self.removed |= erase_from_store(store, belongings, stone, self.user, again=again)

    def search(self) -> tuple[int, list[str]]:
        """Search this machine's folder, and the lake where it is elsewhere: (files searched, where something is)."""
        places = self.config.places
        here, left = search(places.home_dir, self.belongings)
        with tempfile.TemporaryDirectory(prefix="ratchet-forget-") as folder:
            self.lake.storage.fetch(Path(folder))
            there, left_there = search(Path(folder), self.belongings)
        left += [f"{places.lake_url}: {name}" for name in left_there]
        return here + there + self.searched, [*left, *self.left, *out_of_reach(self.config.ingest.sources, self.user)]


def forget(
    config: PipelineConfig,
    store: Store,
    user: str,
    *,
    tenant: str,
    by: str,
    reason: str = "",
    hashed: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> ErasureReport:
    """Take a person out of everything this pipeline keeps. Interrupted, it is run again and finds the rest.

    Args:
        user: the end user's id as applications send it, or a pseudonym (`hashed`, or one of ours, `u-...`).

    Raises:
        NotFound: nothing of that person is here.
        UserError: an ingest was interrupted and must be finished first, or a night of the tenant works now.
        Unavailable: MLflow, or a gateway's own database, holds something of that person and does not answer; run it
            again.
    """
    places, lake = config.places, lake_of(config.places)
    person, raw = _person(store, user, hashed)
    apart = own_stores(config.ingest.sources)
    with lock_nights(places, tenant), locked(lake):
        belongings = _find(config, [store, *apart.values()], lake, tenant, person, raw)
        erasure = Erasure(config, store, lake, apart, raw, belongings)
        # The lake comes late, and the store last: by their rows an interrupted call is begun again, and finds the rest.
        progress("snapshots")
        erase_from_snapshots(places.snapshots_dir, belongings)
        holders = find_holders(places, belongings)
        erasure.removed = {f"snapshot {name}": rows for name, rows in holders.rows.items()}
        abandon_nights(config, tenant, holders.snapshots, "somebody was forgotten whose rows its snapshot held")
        progress("reports, answers, logs, copies on MLflow")
        erasure.take_from_files()
        erasure.mark_trained(holders)
        progress("lake, all versions, and index")
        erasure.removed |= erase_from_lake(lake, belongings)
        progress("store")
        erasure.take_from_stores(holders, by=by, reason=reason)
        progress("searching what is left")
        searched, left = erasure.search()
    live = live_versions(store, tenant, holders.versions)
    if live:
        alert_in_use(store, tenant, live)
    return ErasureReport(
        tenant=tenant,
        person=person,
        interactions=len(belongings.interactions),
        feedback=len(belongings.events),
        rejected_rows=len(belongings.rejects),
        removed={name: rows for name, rows in sorted(erasure.removed.items()) if rows},
        snapshots=holders.snapshots,
        versions=holders.versions,
        live=live,
        plan=tuple(replacement_plan(current(store.database, tenant), live, holders.versions)),
        searched=searched,
        too_short=belongings.short,
        left=tuple(left),
    )


def preview_erasure(
    config: PipelineConfig, store: Store, user: str, *, tenant: str, hashed: bool = False
) -> ErasurePreview:
    """Say what `forget` would remove, and what held it; a night may work meanwhile.

    Raises:
        NotFound, UserError, Unavailable: as `forget` does.
    """
    lake = lake_of(config.places)
    person, raw = _person(store, user, hashed)
    apart = own_stores(config.ingest.sources)
    with locked(lake):
        belongings = _find(config, [store, *apart.values()], lake, tenant, person, raw)
        holders = find_holders(config.places, belongings)
        live = live_versions(store, tenant, holders.versions)
        return ErasurePreview(
            tenant=tenant,
            person=person,
            interactions=len(belongings.interactions),
            feedback=len(belongings.events),
            rejected_rows=len(belongings.rejects),
            snapshots=holders.snapshots,
            rows=holders.rows,
            versions=holders.versions,
            stages=holders.stages,
            live=live,
            plan=tuple(replacement_plan(current(store.database, tenant), live, holders.versions)),
        )


def _person(store: Store, user: str, hashed: bool) -> tuple[str, str | None]:
    """The person's pseudonym, and the id that applications send, where that was given."""
    if hashed or _PSEUDONYM.fullmatch(user) is not None:
        return user, None
    verify_salt(store.database, secret(SALT))
    return pseudonym(user, secret(SALT)), user


def _find(
    config: PipelineConfig, stores: list[Store], lake: Lake, tenant: str, person: str, raw: str | None
) -> Belongings:
    """All that belongs to the person. Call with the lake locked."""
    if lake.staged() is not None:
        raise UserError("an ingest was interrupted half-way; finish it with `ratchet run ingest`, then forget")
    finder = finder_of(config.ingest.redact)
    belongings = join_belongings(
        stores, [find_belongings(store, lake, tenant, person, finder=finder, raw=raw) for store in stores]
    )
    if not (belongings.interactions or belongings.events or belongings.rejects):
        raise NotFound(_why_nothing(stores[0], tenant, person, raw or person))
    return belongings


def _clear_caches(places: Places) -> dict[str, int]:
    """Tokenised data cannot be searched, and a teacher's answers stand beside what was asked; both can be had again."""
    removed = {}
    for name, pattern, what in (
        ("tokenised", "*.safetensors", "tokenised caches"),
        ("teacher", "*.json", "kept answers of teachers"),
    ):
        files = list((places.cache_dir / name).glob(pattern))
        for file in files:
            file.unlink(missing_ok=True)
        removed[what] = len(files)
    return removed


def _why_nothing(store: Store, tenant: str, person: str, user: str) -> str:
    mark = name_hash(tenant, person)
    erased = [stone for stone in tombstones(store.database, tenant) if stone.person == mark]
    if erased:
        return f"nothing of that user is here: forgotten on {erased[-1].at:%Y-%m-%d} by {erased[-1].by}"
    return f"no interaction and no feedback of user {user!r} (pseudonym {person}) in tenant {tenant!r}; check the id"
