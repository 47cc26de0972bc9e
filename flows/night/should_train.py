"""Decide whether to train tonight: is there enough new data since the last night with a verdict?"""

from __future__ import annotations

from pathlib import Path

from deploy.engines import SERVING_ENGINES
from deploy.nights.record import NightRecord
from deploy.nights.steps import APPROVAL, FINGERPRINT, SNAPSHOT, VERDICT
from feedback.examples import SHAPES
from feedback.snapshots.gate_items import gate_items
from feedback.snapshots.snapshot import example_ids, load_snapshot
from flows.night.record import Night, nights_of
from infra.artifact import key_of
from training.base_model import Base
from training.recipes.plan import usable_shapes


def fingerprint_of(night: Night, snapshot: str | None, base: Base) -> str:
    """Fingerprint what a night works on: the same again gives the same challengers, and against the same champion
    the same verdict. (The champion is not in it: a resumed night is judged against the one that is live then, so what
    counts is whom the verdict names.)
    """
    return key_of(
        {
            "snapshot": snapshot or "",
            "base": base.digest,
            "training": night.training.model_dump(mode="json"),
            "evaluation": night.config.evaluation.model_dump(mode="json"),
            "gate": night.gate.model_dump(mode="json"),
        }
    )


def why_not_train(
    night: Night, snapshot: str | None, fingerprint: str, champion: str | None, *, drifted: bool = False
) -> str | None:
    """Return why there is nothing to do tonight, or None. What has drifted need not be much, nor what meets another
    champion.

    Args:
        champion: the live version. Where it is neither the one that the last verdict was against nor its winner, the
            same challengers may be judged anew, as soon as a verdict on it could promote at all (gate 8: on items
            that no earlier verdict used).
    """
    if not snapshot:
        return "nothing to learn from yet: no feedback of this tenant was ever accepted"
    if night.request.force or night.request.checkpoints:
        return None
    earlier = last_night_with_verdict(night)
    verdict = earlier.result(VERDICT) if earlier is not None else None
    if earlier is None or verdict is None:
        return _too_little_new(night, None, snapshot)
    too_little_fresh = None
    if champion not in (verdict.champion, verdict.winner):
        too_little_fresh = _too_little_fresh(night, snapshot)
        if too_little_fresh is None:
            return None
    if earlier.result(FINGERPRINT) == fingerprint:
        same = f"nothing new since night {earlier.night_id}: the snapshot is still {snapshot}"
        if too_little_fresh is None:
            return same
        return f"{same}. Its verdict was against {verdict.champion}, and {champion} is live by now; {too_little_fresh}"
    if drifted and night.config.schedule.night_on_drift:
        return None
    return _too_little_new(night, earlier.result(SNAPSHOT), snapshot)


def last_night_with_verdict(night: Night) -> NightRecord | None:
    """Find the tenant's latest other night whose verdict stands: it ended, or failed with an approved winner to
    release."""
    for earlier in reversed(nights_of(night.config, night.tenant)):
        verdict = earlier.result(VERDICT)
        if earlier.night_id != night.night_id and verdict is not None:
            approved = verdict.winner is not None and earlier.has(APPROVAL) and earlier.result(APPROVAL) is None
            if earlier.state == "done" or (earlier.state == "failed" and approved):
                return earlier
    return None


def _too_little_fresh(night: Night, snapshot: str) -> str | None:
    """Why nothing could be promoted on the snapshot's gate items, whatever is measured; None where it could."""
    items = gate_items(load_snapshot(night.places.snapshots_dir / snapshot))
    fresh, needed = len({item.group for item in items if item.uses == 0}), night.gate.min_fresh_units
    if fresh >= needed:
        return None
    return f"a promotion needs gate items of {needed} units that no verdict used yet, and there are {fresh}"


def _too_little_new(night: Night, earlier: str | None, snapshot: str) -> str | None:
    """Why the examples that are new since the last judged night are too few; None where they are enough."""
    least, folder = night.config.schedule.min_new_examples, night.places.snapshots_dir
    if least <= 1 or (earlier and not (folder / earlier / "manifest.json").exists()):
        return None
    usable = usable_shapes(night.training, lora_only=SERVING_ENGINES.named(night.config.serving.engine).lora_only)
    new = len(_ids(folder, snapshot, usable) - _ids(folder, earlier, usable))
    if new >= least:
        return None
    since = f" since snapshot {earlier}" if earlier else ""
    of = (
        ""
        if usable >= set(SHAPES)
        else f" of a shape that a recipe learns from ({', '.join(sorted(usable)) or 'none'})"
    )
    return f"only {new} new training examples{of}{since}; a night needs {least}"


def _ids(folder: Path, snapshot: str | None, shapes: frozenset[str]) -> set[str]:
    return set(example_ids(load_snapshot(folder / snapshot), shapes)) if snapshot else set()
