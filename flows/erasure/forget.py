"""Forget a person: their rows go from everywhere, what held them is named and marked, and a search proves it.

ratchet forget --user ID [--dry-run]
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Set
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from deploy.experiments.arena import forget_pairs
from deploy.experiments.shadow import forget_shadows
from deploy.ledger.ledger import current
from deploy.ledger.state import Standing
from deploy.versions.versions import list_versions
from feedback.erasure import (
    TOMBSTONE,
    Belongings,
    digests_of,
    erase_data_docs,
    erase_from_lake,
    erase_from_snapshots,
    erase_from_store,
    erased_rows,
    find_belongings,
    join_belongings,
)
from feedback.events import pseudonym
from feedback.ingest.run import locked
from feedback.lake.lake import Lake, lake_of
from feedback.lake.orphans import orphaned_events
from feedback.redaction.redact import finder_of
from feedback.snapshots.layout import TRAIN, VALIDATION
from feedback.sources import gateway
from feedback.sources.landing import SourceSpec
from feedback.store.store import Store
from feedback.store.tombstones import Tombstone, name_hash, tombstones
from feedback.store.user_salt import SALT, verify_salt
from flows.config.pipeline import PipelineConfig
from flows.erasure.mlflow_copies import forget_traces, scrub_copies
from flows.erasure.redact_files import scrub, search
from flows.night.record import abandon, no_night
from infra.alerts.outbox import Alert, enqueue
from infra.artifact import Record, atomic_write, read_record
from infra.database.connect import begin_write, connect, now
from infra.database.errors import OTHER_TABLES, in_short, is_away, is_of_other_tables
from infra.database.schema import create_tables
from infra.errors import NotFound, Unavailable, UserError
from infra.settings import Places, secret

_PSEUDONYM = re.compile(r"u-[0-9a-f]{24}")


def forget(
    config: PipelineConfig,
    store: Store,
    user: str,
    *,
    tenant: str,
    by: str,
    reason: str = "",
    hashed: bool = False,
    dry_run: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Take a person out of everything this pipeline keeps. Interrupted, it is run again and finds the rest.

    Args:
        user: the end user's id as applications send it, or a pseudonym (`hashed`, or one of ours, `u-...`).

    Returns:
        What was removed by place, which snapshots and versions held it, which of these are live, and the proof:
        `left` names every file in which the person or their words were still found.

    Raises:
        NotFound: nothing of that person is here.
        UserError: an ingest was interrupted and must be finished first, or a night of the tenant works now.
        Unavailable: MLflow, or a gateway's own database, holds something of that person and does not answer; run it
            again.
    """
    places, lake = config.places, lake_of(config.places)
    known = hashed or _PSEUDONYM.fullmatch(user) is not None
    if not known:
        verify_salt(store.engine, secret(SALT))
    person = user if known else pseudonym(user, secret(SALT))
    apart = _gateways(config)
    with nullcontext() if dry_run else no_night(config, tenant), locked(lake):
        if lake.staged() is not None:
            raise UserError("an ingest was interrupted half-way; finish it with `ratchet run ingest`, then forget")
        stores, finder = [store, *apart.values()], finder_of(config.ingest.redact)
        raw = None if known else user
        found = join_belongings(
            stores, [find_belongings(one, lake, tenant, person, finder=finder, raw=raw) for one in stores]
        )
        if not (found.interactions or found.events or found.rejects):
            raise NotFound(_nothing(store, tenant, person, user))
        facts: dict[str, Any] = {
            "tenant": tenant,
            "person": person,
            "interactions": len(found.interactions),
            "feedback": len(found.events),
            "rejected rows": len(found.rejects),
        }
        if dry_run:
            held = _held_by(places, found)
            live = live_versions(store, tenant, held["versions"])
            plan = plan_of(current(store.engine, tenant), live, held["versions"])
            return {**facts, "dry_run": True, **held, "live": live, "plan": plan}
        # The lake comes late, and the store last: by their rows an interrupted call is begun again, and finds the rest.
        progress("snapshots")
        erase_from_snapshots(places.snapshots_dir, found)
        held = _held_by(places, found)
        removed = {f"snapshot {name}": rows for name, rows in held["rows"].items()}
        abandon(config, tenant, held["snapshots"], "somebody was forgotten whose rows its snapshot held")
        progress("reports, answers, logs, copies on MLflow")
        removed["data docs"] = erase_data_docs(lake, found)
        leave = [lake.path / table for table in ("accepted", "quarantine", "fates")]
        leave += [places.snapshots_dir, places.versions_dir, places.run_dir]
        removed |= scrub(places.home_dir, found, leave=leave)
        removed |= _caches(places) | _traces(config, user, known)
        removed["traces of this pipeline"] = forget_traces(places, config.pipeline, found)
        copies, fetched, kept = scrub_copies(places, config.pipeline, found)
        removed |= copies
        mark = {"tenant": tenant, "person": name_hash(tenant, person), "at": now().isoformat()}
        marked = [places.versions_dir / version for version in held["versions"]]
        for folder in [*marked, *(places.stages_dir / key for key in held["stages"])]:
            atomic_write(folder / TOMBSTONE, json.dumps(mark, indent=2) + "\n")
        progress("lake, all versions, and index")
        removed |= erase_from_lake(lake, found)
        progress("store")
        removed |= _unseen(store, found)
        stone = Tombstone(
            tenant=tenant,
            person=name_hash(tenant, person),
            removed={name: rows for name, rows in removed.items() if rows},
            snapshots=tuple(held["snapshots"]),
            versions=tuple(held["versions"]),
            by=by,
            reason=reason,
            at=now(),
        )
        for name, other in apart.items():  # before ours, by which an interrupted call is begun again
            rows = erase_from_store(other, found, stone, None if known else user)
            removed[f"gateway's store {name}"] = sum(rows.values())
        removed |= erase_from_store(store, found, stone, None if known else user, again=orphaned_events(lake, tenant))
        progress("searching what is left")
        searched, left = _search(places, lake, found)
        searched, left = searched + fetched, [*left, *kept, *_out_of_reach(config, known)]
    live = live_versions(store, tenant, held["versions"])
    if live:
        _say_in_use(store, tenant, live)
    return {
        **facts,
        "dry_run": False,
        "removed": {name: rows for name, rows in sorted(removed.items()) if rows},
        "snapshots": held["snapshots"],
        "versions": held["versions"],
        "live": live,
        "plan": plan_of(current(store.engine, tenant), live, held["versions"]),
        "searched": searched,
        "too short": found.short,
        "left": left,
    }


def _search(places: Places, lake: Lake, found: Belongings) -> tuple[int, list[str]]:
    """`search` of this machine's folder, and of the lake where it is elsewhere."""
    searched, left = search(places.home_dir, found)
    with tempfile.TemporaryDirectory(prefix="ratchet-forget-") as folder:
        lake.storage.fetch(Path(folder))
        more, there = search(Path(folder), found)
    return searched + more, [*left, *(f"{places.lake_url}: {name}" for name in there)]


def live_versions(store: Store, tenant: str, versions: list[str]) -> dict[str, str]:
    """Which of these versions users get now, and as what."""
    standing = current(store.engine, tenant)
    roles = {"champion": standing.champion, "previous": standing.previous}
    watch = standing.watch
    if watch is not None:
        roles["canary"] = watch.version
    return {role: version for role, version in roles.items() if version in versions}


def pending(places: Places, store: Store, tenant: str) -> dict[str, str]:
    """Live versions that were trained on somebody who was forgotten since: they wait to be replaced.

    Among them those that were published, or trained further, only after the person was forgotten.
    """
    named = {version for stone in tombstones(store.engine, tenant) for version in stone.versions}
    marks = {folder.name: folder / TOMBSTONE for folder in _folders(places.stages_dir)}
    tainted = {key for key, mark in marks.items() if mark.exists() and json.loads(mark.read_text())["tenant"] == tenant}
    return live_versions(store, tenant, sorted(named | set(_made_of(places, _with_later(places, tainted)))))


def _held_by(places: Places, found: Belongings) -> dict[str, Any]:
    """Snapshots with a tombstone or rows of the person, and the stages and versions that trained on them."""
    rows: dict[str, int] = {}
    digests: set[str] = set()
    for folder in sorted(places.snapshots_dir.glob("s-*")):
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["identity"]["tenant"] != found.tenant:
            continue
        parts = erased_rows(folder, name_hash(found.tenant, found.person))
        for file in folder.rglob("*.jsonl"):
            here = sum(found.owns(json.loads(line)) for line in file.read_text().splitlines() if line.strip())
            part = file.relative_to(folder).as_posix()
            parts[part] = parts.get(part, 0) + here
        if sum(parts.values()):
            rows[folder.name] = sum(parts.values())
            had = digests_of(folder)
            digests |= {digest for part in (TRAIN, VALIDATION) if parts.get(part) for digest in had[part]}
    tainted = _with_later(places, _stages_on(places, digests))
    return {
        "snapshots": sorted(rows),
        "rows": rows,
        "versions": _made_of(places, tainted, digests),
        "stages": sorted(key for key in tainted if (places.stages_dir / key).is_dir()),
    }


def trained_on(places: Places, digests: set[str]) -> list[str]:
    """Versions with a stage, or an earlier stage, that trained on data of these digests."""
    return _made_of(places, _with_later(places, _stages_on(places, digests)), digests)


def _stages(places: Places) -> dict[str, Record]:
    return {record.key: record for folder in _folders(places.stages_dir) if (record := read_record(folder))}


def _stages_on(places: Places, digests: set[str]) -> set[str]:
    return {key for key, record in _stages(places).items() if digests & set(record.parents.values())}


def _with_later(places: Places, tainted: set[str]) -> set[str]:
    """These stages and all that began where one of them ended."""
    stages, tainted = _stages(places), set(tainted)
    while more := {k for k, r in stages.items() if k not in tainted and r.parents.get("previous_stage") in tainted}:
        tainted |= more
    return tainted


def _made_of(places: Places, stages: set[str], digests: Set[str] = frozenset()) -> list[str]:
    """Versions whose weights one of these stages made, or that name one of the digests themselves."""
    found = []
    for version in list_versions(places.versions_dir):
        record = read_record(places.versions_dir / version)
        if record is not None and (
            record.key in stages
            or digests & set(record.parents.values())
            or record.parents.get("previous_stage") in stages
        ):
            found.append(version)
    return found


def _folders(path: Path) -> list[Path]:
    return [p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")] if path.is_dir() else []


def _caches(places: Places) -> dict[str, int]:
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


def _gateways(config: PipelineConfig) -> dict[str, Store]:
    """Stores of gateways that have a database of their own, by the source that follows them.

    Raises:
        Unavailable: one does not answer.
    """
    stores = {}
    for spec in config.ingest.sources:
        options = spec.parsed() if spec.kind == "gateway" else None
        url = options.database_url if isinstance(options, gateway.Options) else None
        if url is not None:
            try:
                engine = connect(url)
                create_tables(engine)
            except SQLAlchemyError as error:
                holds = f"the database of source {spec.name} holds what its gateway was asked"
                if is_of_other_tables(error):
                    raise UserError(f"{holds}: {OTHER_TABLES} ({in_short(error)}); nothing was removed") from error
                if not is_away(error):
                    raise
                raise Unavailable(
                    f"{holds} and does not answer ({in_short(error)}); nothing was removed: forget again when it does"
                ) from error
            stores[spec.name] = Store(engine)
    return stores


def _unseen(store: Store, found: Belongings) -> dict[str, int]:
    """What versions answered to the person in shadow, and the pairs they were shown in the arena."""
    create_tables(store.engine)  # a pipeline that never had either has no tables for them
    with begin_write(store.engine) as connection:
        return {
            "shadow answers": forget_shadows(connection, found.tenant, found.interactions),
            "arena pairs": forget_pairs(connection, found.tenant, found.interactions),
        }


def _traces(config: PipelineConfig, user: str, hashed: bool) -> dict[str, int]:
    """The person's traces on MLflow servers that this pipeline reads from. These know people by their own ids."""
    if hashed:
        return {}
    removed = {}
    for spec in config.ingest.sources:
        if spec.kind == "mlflow_traces":
            removed[f"traces of source {spec.name}"] = _delete_traces(spec, user)
    return removed


def _out_of_reach(config: PipelineConfig, hashed: bool) -> list[str]:
    """Sources that know people by their own ids, where only the pseudonym was given."""
    sources = [spec.name for spec in config.ingest.sources if spec.kind == "mlflow_traces"] if hashed else []
    return [f"traces of source {name} (not looked for: give the id that applications send)" for name in sources]


def _delete_traces(spec: SourceSpec, user: str) -> int:
    from feedback.sources import mlflow_traces

    options = spec.parsed()
    assert isinstance(options, mlflow_traces.Options)
    return mlflow_traces.delete_of_user(options, user)


def plan_of(standing: Standing, live: dict[str, str], versions: list[str]) -> list[str]:
    """What to do about versions that learned from rows that are gone, step by step, with the commands."""
    if not live:
        idle = f"{len(versions)} version(s) that nobody gets" if versions else "no version"
        return [f"nothing that is live was trained on it ({idle}); nothing needs to be replaced"]
    steps = []
    barred = ""
    if "canary" in live:
        steps.append(f"take back the canary {live['canary']}: `ratchet rollback --reason 'forgotten user'`")
        barred = ", and `ratchet resume`, for a rollback stops promotions"
    steps.append(
        f"train a replacement of {', '.join(f'{name} ({role})' for role, name in live.items())} on what is left: "
        f"`ratchet run nightly --force`{barred}"
    )
    if "champion" in live:
        clean = [name for name in reversed(standing.champions) if name not in versions and name not in standing.barred]
        goal = clean[0] if clean else standing.base
        if goal is not None and goal not in versions:
            what = "an earlier champion" if clean else "the base model"
            steps.append(
                f"if users must not wait for that: `ratchet rollback --to {goal} --reason 'forgotten user'` makes "
                f"{what} live, which never saw those rows, and bars the champion; `ratchet resume` afterwards"
            )
    if "previous" in live:
        steps.append(
            f"until the next release a rollback would lead to {live['previous']}: "
            "name another with `ratchet rollback --to`"
        )
    steps.append("until a version without them is live, `ratchet forget --list` names what waits")
    return steps


def _say_in_use(store: Store, tenant: str, live: dict[str, str]) -> None:
    versions = ", ".join(f"{version} ({role})" for role, version in live.items())
    alert = Alert(
        kind="forgotten_in_use",
        severity="warning",
        tenant=tenant,
        title=f"a live version was trained on somebody who was forgotten: {versions}",
        text="The person's rows are gone from every place that keeps data; these weights were made with them.",
        next_step="`ratchet run nightly --force` trains a replacement without them",
        payload={"versions": live},
    )
    with begin_write(store.engine) as connection:
        enqueue(connection, alert)


def _nothing(store: Store, tenant: str, person: str, user: str) -> str:
    mark = name_hash(tenant, person)
    before = [stone for stone in tombstones(store.engine, tenant) if stone.person == mark]
    if before:
        return f"nothing of that user is here: forgotten on {before[-1].at:%Y-%m-%d} by {before[-1].by}"
    return f"no interaction and no feedback of user {user!r} (pseudonym {person}) in tenant {tenant!r}; check the id"
