"""Finding stored evaluations and policies for `ratchet gate replay` and `ratchet compare`. No Prefect, no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluation.comparison import find_version
from evaluation.policy import GatePolicy
from evaluation.scorecard import Scorecard, read_scorecard
from flows.config import PipelineConfig
from flows.night import RESCORE, NightFile, nights_of, read_night
from infra.errors import NotFound, UserError


def evaluated_night(config: PipelineConfig, tenant: str, name: str | None) -> NightFile:
    """The night called `name`; None: the tenant's last one that came to a verdict.

    Raises:
        NotFound: there is none.
    """
    if name is not None:
        return read_night(config, name)
    judged = [night for night in nights_of(config, tenant) if "verdict" in night.steps]
    if not judged:
        raise NotFound(f"no night of tenant {tenant!r} has come to a verdict yet; `ratchet run nightly` begins one")
    return judged[-1]


def policy_of(night: NightFile) -> GatePolicy:
    """The policy that a night was judged by: its config's gate with what that night was asked for."""
    return GatePolicy.model_validate({**night.config.get("gate", {}), **night.request.gate.given()})


def read_policy(path: Path) -> GatePolicy:
    """A policy from a YAML file: the keys of the config's gate section, alone or below `gate:`.

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
    """The tenant's newest stored scorecard on which both versions were measured, and their full names.

    Raises:
        NotFound: no evaluation measured both.
    """
    # Nights that only scored the champion again know fewer metrics: they are asked last.
    nights = nights_of(config, tenant)
    for night in sorted(nights, key=lambda night: (RESCORE not in night.steps, night.started_at), reverse=True):
        file = config.places.evaluations_dir / night.night_id / "scorecard.json"
        if not file.exists():
            continue
        scorecard = read_scorecard(file)
        ours, theirs = find_version(scorecard, a), find_version(scorecard, b)
        if ours is not None and theirs is not None:
            return scorecard, ours.version, theirs.version
    raise NotFound(
        f"no evaluation of tenant {tenant!r} in {config.places.evaluations_dir} measured both {a} and {b} on the same "
        "items; a night measures base, champion, its predecessor and the challengers"
    )
