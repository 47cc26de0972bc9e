"""Find stored evaluations and policies for `ratchet gate replay` and `ratchet compare`. No Prefect, no model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.nights.record import NightRecord
from deploy.nights.steps import RESCORE, VERDICT
from evaluation.gate.comparison import joint_scorecard, version_called
from evaluation.gate.policy import GatePolicy
from evaluation.scorecard import Scorecard, read_scorecard
from flows.config.pipeline import PipelineConfig
from flows.night.record import nights_of, read_night
from infra.errors import NotFound, UserError


def evaluated_night(config: PipelineConfig, tenant: str, name: str | None) -> NightRecord:
    """Find the night called `name`; None: the tenant's last one that came to a verdict.

    Raises:
        NotFound: there is none.
    """
    if name is not None:
        return read_night(config, name)
    judged = [night for night in nights_of(config, tenant) if night.has(VERDICT)]
    if not judged:
        raise NotFound(f"no night of tenant {tenant!r} has come to a verdict yet; `ratchet run nightly` begins one")
    return judged[-1]


def policy_of(night: NightRecord) -> GatePolicy:
    """Return the policy that a night was judged by: its config's gate with what that night was asked for."""
    values = {**night.config.get("gate", {}), **night.request.gate.given()}
    return GatePolicy.model_validate(values, extra="ignore")


def read_policy(path: Path) -> GatePolicy:
    """Read a policy from a YAML file: the keys of the config's gate section, alone or below `gate:`.

    Raises:
        NotFound: no such file.
        UserError: it is no policy; the message names the key.
    """
    import yaml
    from pydantic import ValidationError

    try:
        values: Any = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise NotFound(f"no policy file {path}; expected YAML with the keys of the config's gate section") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from None
    if isinstance(values, dict) and "gate" in values:
        values = values["gate"]
    try:
        return GatePolicy.model_validate(values or {})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: {place}: {first['msg']}; see the gate section in docs/reference/config.md") from None


def scorecard_with(config: PipelineConfig, tenant: str, a: str, b: str) -> tuple[Scorecard, str, str]:
    """Find a scorecard with both versions, and their full names: the tenant's newest evaluation that measured both, or
    else the newest of each, on the items that the two share.

    Raises:
        NotFound: one was never measured, or the two have no item in common.
    """
    ours: list[tuple[Scorecard, str]] = []
    theirs: list[tuple[Scorecard, str]] = []
    for scorecard in _scorecards(config, tenant):
        one, other = version_called(scorecard, a), version_called(scorecard, b)
        if one is not None and other is not None:
            return scorecard, one.version, other.version
        ours += [(scorecard, one.version)] if one is not None else []
        theirs += [(scorecard, other.version)] if other is not None else []
    for name, found in ((a, ours), (b, theirs)):
        if not found:
            raise NotFound(
                f"no evaluation of tenant {tenant!r} in {config.places.evaluations_dir} measured {name}; a night "
                "measures base, champion, its predecessor and the challengers"
            )
    for first, one_version in ours:
        for second, other_version in theirs:
            both = joint_scorecard(first, one_version, second, other_version)
            if both is not None:
                return both, one_version, other_version
    raise NotFound(
        f"no evaluation of tenant {tenant!r} measured both {a} and {b}, and no two that measured one each share items "
        "and hardware; a night measures base, champion, its predecessor and the challengers on the same items"
    )


def _scorecards(config: PipelineConfig, tenant: str) -> Iterator[Scorecard]:
    """Newest first; nights that only scored the champion again know fewer metrics, so they come last."""
    nights = nights_of(config, tenant)
    for night in sorted(nights, key=lambda night: (not night.has(RESCORE), night.started_at), reverse=True):
        file = config.places.evaluations_dir / night.night_id / "scorecard.json"
        if file.exists():
            yield read_scorecard(file)
