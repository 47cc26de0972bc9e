"""Reconcile MLflow's registry with the ledger; a move of an alias by hand there becomes a release like any other.

A champion alias moved by hand asks for that version. It is released through the canary when its weights are here and
proved in the engine, it is not barred, and it either passed a gate before or names who overrides it (tags
`ratchet.override_by` and `ratchet.override_reason` on the model version). Otherwise the alias is put back, with an
alert. Either way the aliases then say what the ledger says.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Engine

from deploy.ledger.evidence import Override, VerdictSummary
from deploy.ledger.ledger import RefusedTransition, current, history
from deploy.registry.aliases import CHAMPION, ManualAliasMove, manual_moves, sync_aliases
from deploy.registry.model_registry import ModelRegistry
from deploy.registry.version_page import STATE_TAG
from deploy.release.opening import Releases
from deploy.versions.versions import VersionFile, load_version
from infra.alerts.outbox import Alert, enqueue
from infra.database.connect import begin_write
from infra.errors import NotFound, RatchetError

OVERRIDE_BY, OVERRIDE_REASON = "ratchet.override_by", "ratchet.override_reason"


def reconcile(releases: Releases, registry: ModelRegistry) -> list[str]:
    """Release what was asked for by hand, then make the aliases follow; returns the aliases that were written.

    Raises:
        Unavailable: MLflow did not answer; call again later.
    """
    database, tenant = releases.database, releases.tenant
    if current(database, tenant).champion is None:
        return []
    for move in manual_moves(database, registry, tenant):
        _release_or_put_back(releases, registry, move)
    state = current(database, tenant)
    files: dict[str, VersionFile] = {}
    for version in state.pinned - {state.base}:
        files[version] = load_version(releases.versions_dir, version, check=False)
    return sync_aliases(database, registry, state, files)


def _release_or_put_back(releases: Releases, registry: ModelRegistry, move: ManualAliasMove) -> None:
    state = current(releases.database, releases.tenant)
    if move.version is not None and move.version in (state.champion, state.canary):
        return  # it is already what was asked for: taken up before a crash
    try:
        _release(releases, registry, move, champion=state.champion)
    except RatchetError as why:
        title = f"alias {move.alias} was moved by hand in MLflow and is put back"
        alert = Alert(
            kind="alias_put_back",
            severity="warning",
            tenant=releases.tenant,
            title=title,
            text=f"It pointed to {move.version or move.number or 'nothing'}. {why}",
            next_step=f"to release it all the same, tag its model version with {OVERRIDE_BY} and "
            f"{OVERRIDE_REASON} and move the alias again",
            links={"mlflow": f"{registry.url}/#/models/{registry.model}"},
            payload=move.model_dump(mode="json", by_alias=True),
        )
        with begin_write(releases.database) as connection:
            enqueue(connection, alert)


def _release(releases: Releases, registry: ModelRegistry, move: ManualAliasMove, *, champion: str | None) -> None:
    """Open the release that a moved alias asks for.

    Raises:
        RatchetError: it asks for none that may open.
    """
    if move.alias != CHAMPION:
        raise RefusedTransition(f"only the alias {CHAMPION} asks for a release; {move.alias} follows the ledger")
    if move.number is None:
        raise RefusedTransition(f"the alias was deleted, but {champion} is live")
    if move.version is None:
        raise NotFound(f"MLflow's version {move.number} of {registry.model} is none of Ratchet's")
    if move.tags.get(STATE_TAG) == CHAMPION:
        raise RefusedTransition(
            f"MLflow calls {move.version} the champion in its tags too, as before {champion}: it was "
            "restored from a backup, which asks for no release, and follows the ledger again"
        )
    override = _override_in(move.tags)
    gate = None if override else grounds_of(releases.database, releases.tenant, move.version)
    releases.open(move.version, actor="mlflow", gate=gate, override=override)


def _override_in(tags: Mapping[str, str]) -> Override | None:
    """The person named on the model version."""
    if tags.get(OVERRIDE_BY) and tags.get(OVERRIDE_REASON):
        return Override(actor=tags[OVERRIDE_BY], reason=tags[OVERRIDE_REASON])
    return None


def grounds_of(database: Engine, tenant: str, version: str) -> VerdictSummary | None:
    """Return the gate verdict that let a version in before, from the ledger; None when none did."""
    for entry in reversed(history(database, tenant)):
        if entry.action == "gated" and entry.version == version and entry.evidence.gate:
            return entry.evidence.gate
    return None
