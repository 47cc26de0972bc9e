"""Write a night's outcome: publish its winner's weights, or hold the night in the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Engine

from deploy.ledger.evidence import Evidence, NightReference, VerdictSummary
from deploy.ledger.ledger import Entry
from deploy.nights.challenger import Challenger
from deploy.release.lifecycle import hold
from deploy.versions.versions import publish_version
from evaluation.gate.verdict import Verdict
from infra.alerts.outbox import Severity
from infra.errors import RatchetError
from infra.settings import Places


def publish_winner(version: str, challengers: Sequence[Challenger], places: Places, base: Path | None) -> None:
    """Publish the weights of the night's winner as a version.

    Raises:
        RatchetError: no stage of the challengers made it.
    """
    for challenger in challengers:
        for stage in challenger.stages:
            if stage.version == version:
                publish_version(places.stages_dir / stage.key, places.versions_dir, base=base)
                return
    raise RatchetError(f"the verdict's winner {version} is no stage of this night; its record was changed by hand")


def hold_night(
    database: Engine, tenant: str, verdict: Verdict, *, refusal: str | None, night_id: str, reference: NightReference
) -> Entry:
    """Write why nothing is released: the verdict's reasons, or a person's refusal."""
    regressed = any(c.harm_p_value is not None and c.harm_p_value < 0.05 for c in verdict.challengers)
    severity: Severity = "warning" if regressed or verdict.decision == "reject" else "info"
    return hold(
        database,
        tenant,
        verdict.winner or _best_challenger(verdict) or verdict.champion,
        reason=(refusal or f"{verdict.decision}: {' '.join(verdict.reasons)}")[:4000],
        night_id=night_id,
        evidence=Evidence.model_validate(VerdictSummary.of(verdict, reference).model_dump(mode="json")),
        severity=severity,
    )


def _best_challenger(verdict: Verdict) -> str | None:
    """The challenger with the largest estimated gain, promoted or not."""
    known = [c for c in verdict.challengers if c.gain is not None]
    return max(known, key=lambda c: (c.gain or 0.0, c.version)).version if known else None
