"""Whether a night is worth its time: is anything new since the last one that judged?"""

from __future__ import annotations

from deploy.engines import SERVING_ENGINES
from feedback.examples import SHAPES
from feedback.snapshots.gate_items import gate_items
from feedback.snapshots.snapshot import example_ids, load_snapshot
from flows.night.record import Night, NightFile, nights_of
from flows.night.steps import gate_of, training_of
from infra.artifact import key_of
from training.base_model import Base
from training.recipes.plan import usable_shapes


def asked_of(night: Night, snapshot: str, base: Base) -> str:
    """Fingerprint of what a night works on: the same again gives the same challengers, and against the same champion
    the same verdict. (The champion is not in it: a night taken up again is judged against the one that is live then,
    so what counts is whom the verdict names.)
    """
    return key_of(
        {
            "snapshot": snapshot,
            "base": base.digest,
            "training": training_of(night).model_dump(mode="json"),
            "evaluation": night.config.evaluation.model_dump(mode="json"),
            "gate": gate_of(night).model_dump(mode="json"),
        }
    )


def nothing_new(night: Night, snapshot: str, asked: str, champion: str | None, *, drifted: bool = False) -> str | None:
    """Why there is nothing to do tonight, or None. What has drifted need not be much, nor what meets another champion.

    Args:
        champion: the live version. Where it is neither the one that the last verdict was against nor its winner, the
            same challengers may be judged anew, as soon as a verdict on it could promote at all (gate 8: on items
            that no earlier verdict used).
    """
    if not snapshot:
        return "nothing to learn from yet: no feedback of this tenant was ever accepted"
    if night.request.force or night.request.checkpoints:
        return None
    earlier = last_judged(night)
    if earlier is None:
        return _too_little_new(night, "", snapshot)
    against, winner = (earlier.steps["verdict"][name] for name in ("champion", "winner"))
    too_little_fresh = None
    if champion not in (against, winner):
        too_little_fresh = _too_little_fresh(night, snapshot)
        if too_little_fresh is None:
            return None
    if earlier.steps.get("asked") == asked:
        same = f"nothing new since night {earlier.night_id}: the snapshot is still {snapshot}"
        if too_little_fresh is None:
            return same
        return f"{same}. Its verdict was against {against}, and {champion} is live by now; {too_little_fresh}"
    if drifted and night.config.schedule.night_on_drift:
        return None
    return _too_little_new(night, str(earlier.steps.get("snapshot", "")), snapshot)


def last_judged(night: Night) -> NightFile | None:
    """The tenant's latest other night whose verdict stands: it ended, or failed with an approved winner to release."""
    for earlier in reversed(nights_of(night.config, night.tenant)):
        if earlier.night_id != night.night_id and "verdict" in earlier.steps:
            approved = earlier.steps["verdict"]["winner"] is not None and earlier.steps.get("approval") == ""
            if earlier.state == "done" or (earlier.state == "failed" and approved):
                return earlier
    return None


def _too_little_fresh(night: Night, snapshot: str) -> str | None:
    """Why nothing could be promoted on the snapshot's gate items, whatever is found; None where it could."""
    items = gate_items(load_snapshot(night.config.places.snapshots_dir / snapshot))
    fresh, needed = len({item.group for item in items if item.uses == 0}), gate_of(night).min_fresh_units
    if fresh >= needed:
        return None
    return f"a promotion needs gate items of {needed} units that no verdict used yet, and there are {fresh}"


def _too_little_new(night: Night, before: str, snapshot: str) -> str | None:
    """Why the examples that are new since the last judged night are too few; None where they are enough."""
    least, folder = night.config.schedule.min_new_examples, night.config.places.snapshots_dir
    if least <= 1 or (before and not (folder / before / "manifest.json").exists()):
        return None
    usable = usable_shapes(training_of(night), lora_only=SERVING_ENGINES.named(night.config.serving.engine).lora_only)
    was, now = (set(example_ids(load_snapshot(folder / name), usable) if name else ()) for name in (before, snapshot))
    if len(now - was) >= least:
        return None
    since = f" since snapshot {before}" if before else ""
    of = (
        ""
        if usable >= set(SHAPES)
        else f" of a shape that a recipe learns from ({', '.join(sorted(usable)) or 'none'})"
    )
    return f"only {len(now - was)} new training examples{of}{since}; a night needs {least}"
