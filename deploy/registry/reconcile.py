"""Keeps MLflow in step with the ledger, and makes a move of an alias by hand there a release like any other.

A champion alias moved by hand asks for that version. It is released through the canary when its weights are here and
proved in the engine, it is not barred, and it either passed a gate before or names who overrides it (tags
`ratchet.override_by` and `ratchet.override_reason` on the model version). Otherwise the alias is put back, with an
alert. Either way the aliases then say what the ledger says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from deploy.canary.policy import CanaryPolicy
from deploy.ledger.ledger import RefusedTransition, current, history
from deploy.registry.aliases import CHAMPION, STATE_TAG, HandMove, Registry, follow, hand_moves
from deploy.release.lifecycle import Override, Prove, open_release
from deploy.versions.versions import VersionFile, load_version
from infra.alerts.outbox import Alert, enqueue
from infra.database.connect import begin_write
from infra.errors import NotFound, RatchetError

OVERRIDE_BY, OVERRIDE_REASON = "ratchet.override_by", "ratchet.override_reason"


def reconcile(
    engine: Engine,
    registry: Registry,
    tenant: str,
    *,
    versions_dir: Path,
    policy: CanaryPolicy,
    prove: Prove,
    shadow_only: bool = False,
    shared: str | None = None,
) -> list[str]:
    """Take up what was moved by hand, then make the aliases follow; returns the aliases that were written.

    Args:
        shadow_only: an endpoint outside of Ratchet is champion, so no canary may open.
        shared: the tenant whose champion serves tenants without one of their own.

    Raises:
        Unavailable: MLflow did not answer; call again later.
    """
    if current(engine, tenant).champion is None:
        return []
    for move in hand_moves(engine, registry, tenant):
        _take_up(engine, registry, tenant, move, versions_dir, policy, prove, shadow_only, shared)
    standing = current(engine, tenant)
    files: dict[str, VersionFile] = {}
    for version in standing.pinned - {standing.base}:
        files[version] = load_version(versions_dir, version, check=False)
    return follow(engine, registry, standing, files)


def _take_up(
    engine: Engine,
    registry: Registry,
    tenant: str,
    move: HandMove,
    versions_dir: Path,
    policy: CanaryPolicy,
    prove: Prove,
    shadow_only: bool,
    shared: str | None,
) -> None:
    standing = current(engine, tenant)
    if move.version is not None and move.version in (standing.champion, standing.canary):
        return  # it is already what was asked for: taken up before a crash
    try:
        if move.alias != CHAMPION:
            raise RefusedTransition(f"only the alias {CHAMPION} asks for a release; {move.alias} follows the ledger")
        if move.found is None:
            raise RefusedTransition(f"the alias was deleted, but {standing.champion} is live")
        if move.version is None:
            raise NotFound(f"MLflow's version {move.found} of {registry.model} is none of Ratchet's")
        if move.tags.get(STATE_TAG) == CHAMPION:
            raise RefusedTransition(
                f"MLflow calls {move.version} the champion in its tags too, as before {standing.champion}: it was "
                "restored from a backup, which asks for no release, and follows the ledger again"
            )
        gate, override = _grounds(engine, tenant, move.version, move.tags)
        open_release(
            engine,
            tenant,
            move.version,
            versions_dir=versions_dir,
            policy=policy,
            prove=prove,
            actor="mlflow",
            gate=gate,
            override=override,
            shadow_only=shadow_only,
            shared=shared,
        )
    except RatchetError as why:
        title = f"alias {move.alias} was moved by hand in MLflow and is put back"
        with begin_write(engine) as connection:
            enqueue(
                connection,
                Alert(
                    kind="alias_put_back",
                    severity="warning",
                    tenant=tenant,
                    title=title,
                    text=f"It pointed to {move.version or move.found or 'nothing'}. {why}",
                    next_step=f"to release it all the same, tag its model version with {OVERRIDE_BY} and "
                    f"{OVERRIDE_REASON} and move the alias again",
                    links={"mlflow": f"{registry.url}/#/models/{registry.model}"},
                    payload=move.model_dump(mode="json"),
                ),
            )


def _grounds(
    engine: Engine, tenant: str, version: str, tags: Mapping[str, str]
) -> tuple[dict[str, Any] | None, Override | None]:
    """The verdict that passed the version before, or the person named on it."""
    if tags.get(OVERRIDE_BY) and tags.get(OVERRIDE_REASON):
        return None, Override(actor=tags[OVERRIDE_BY], reason=tags[OVERRIDE_REASON])
    return grounds_of(engine, tenant, version), None


def grounds_of(engine: Engine, tenant: str, version: str) -> dict[str, Any] | None:
    """The gate verdict that let a version in before, from the ledger; None when none did."""
    for line in reversed(history(engine, tenant)):
        if line.action == "gated" and line.version == version and line.evidence.get("gate"):
            return dict(line.evidence["gate"])
    return None
