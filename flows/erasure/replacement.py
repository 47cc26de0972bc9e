"""Plan the replacement of live versions that were trained on somebody who was erased."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from deploy.ledger.ledger import current
from deploy.ledger.state import ReleaseState
from deploy.versions.provenance import stage_folders, versions_of, with_later_stages
from feedback.erasure.snapshots import TOMBSTONE
from feedback.store.store import Store
from feedback.store.tombstones import tombstones
from infra.alerts.outbox import Alert, enqueue
from infra.database.connect import begin_write
from infra.settings import Places


def live_versions(store: Store, tenant: str, versions: Collection[str]) -> dict[str, str]:
    """Return which of these versions users get now, by role."""
    standing = current(store.database, tenant)
    roles = {"champion": standing.champion, "previous": standing.previous}
    watch = standing.watch
    if watch is not None:
        roles["canary"] = watch.version
    return {role: version for role, version in roles.items() if version is not None and version in versions}


def pending(places: Places, store: Store, tenant: str) -> dict[str, str]:
    """Return the live versions, by role, that were trained on somebody who was erased since: they wait to be replaced.

    Among them those that were published, or trained further, only after the person was erased.
    """
    named = {version for stone in tombstones(store.database, tenant) for version in stone.versions}
    marks = {folder.name: folder / TOMBSTONE for folder in stage_folders(places)}
    tainted = {key for key, mark in marks.items() if mark.exists() and json.loads(mark.read_text())["tenant"] == tenant}
    return live_versions(store, tenant, named | set(versions_of(places, with_later_stages(places, tainted))))


def replacement_plan(standing: ReleaseState, live: Mapping[str, str], versions: Collection[str]) -> list[str]:
    """Say what to do about versions that learned from rows that are gone, step by step, with the commands."""
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


def alert_in_use(store: Store, tenant: str, live: Mapping[str, str]) -> None:
    """Alert that users get versions that were trained on somebody who was erased."""
    versions = ", ".join(f"{version} ({role})" for role, version in live.items())
    alert = Alert(
        kind="forgotten_in_use",
        severity="warning",
        tenant=tenant,
        title=f"a live version was trained on somebody who was forgotten: {versions}",
        text="The person's rows are gone from every place that keeps data; these weights were made with them.",
        next_step="`ratchet run nightly --force` trains a replacement without them",
        payload={"versions": dict(live)},
    )
    with begin_write(store.database) as connection:
        enqueue(connection, alert)
