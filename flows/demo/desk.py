"""Configure the desk's pipeline: its config file, which every `ratchet` command can be pointed at, and its keys."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from flows.config.load import load_config
from flows.config.pipeline import PipelineConfig
from flows.demo.home import CONFIG
from flows.demo.sizes import DemoSizes
from flows.demo.users import MAX_TOKENS, Desk
from infra.artifact import atomic_write
from infra.processes.identity import port_taken

PIPELINE = "support-desk"
TENANT = "default"
_HOST = "127.0.0.1"
_PORTS = {"gateway_port": 8610, "engine_port": 8611, "prefect_port": 4270, "mlflow_port": 5070, "receiver": 8619}


def write_config(home: Path, *, base_model: str | None, sizes: DemoSizes, cache: Path | None) -> PipelineConfig:
    """Write the desk's config file and read it back, checked like any other."""
    ports = {name: _free(port) for name, port in _PORTS.items()}
    receiver = ports.pop("receiver")
    values: dict[str, Any] = {
        "pipeline": PIPELINE,
        "places": {"home": ".", "host": _HOST, **ports, **({"cache": str(cache)} if cache else {})},
        **(demo_settings() if sizes.config is None else sizes.config),
        "alerts": {"webhooks": {"demo": {"url": f"http://{_HOST}:{receiver}/alerts"}}, "retry_seconds": 0.5},
    }
    if base_model is not None:
        values["base_model"] = base_model
    import yaml

    head = "# The demo's pipeline. Made by `ratchet demo`; try `ratchet status --config` with this file.\n"
    atomic_write(home / CONFIG, head + yaml.safe_dump(values, sort_keys=False))
    return load_config(home / CONFIG)


def read_config(home: Path) -> PipelineConfig:
    """The config an earlier act wrote."""
    return load_config(home / CONFIG)


def receiver_port(config: PipelineConfig) -> int:
    """Where the desk's alerts are sent."""
    url = config.alerts.webhooks["demo"].url
    return int(url.rsplit(":", 1)[1].split("/")[0])


def open_desk(config: PipelineConfig) -> Desk:
    """The desk with the pipeline's first keys, the same that `ratchet up` makes."""
    from flows.stack.first_keys import first_keys

    keys = json.loads(first_keys(config).file.read_text())[TENANT]
    return Desk(
        gateway_url=config.places.gateway_url,
        model=config.pipeline,
        app_key=keys["app"],
        agent_key=keys["reviewer"],
        admin_key=keys["admin"],
    )


_RECIPES: dict[str, tuple[tuple[str, float], ...]] = {
    "sft-lora": (("sft", 4),),
    "sft-dpo-lora": (("sft", 4), ("dpo", 0.3)),
    "sft-kto-lora": (("sft", 4), ("kto", 0.5)),
    "sft-lora-one-pass": (("sft", 1),),
}
"""Recipe -> objectives and passes. Corrections are few, so four passes over them; what refines takes less."""


def _stages(recipe: str) -> list[dict[str, Any]]:
    return [
        {
            "objective": objective,
            "epochs": epochs,
            "starts_from": "previous" if place else "base",
            "batch_size": 4,
            "evaluations": 2,
        }
        for place, (objective, epochs) in enumerate(_RECIPES[recipe])
    ]


def demo_settings() -> dict[str, Any]:
    """The sections of the desk's config that differ from the defaults: a night of minutes instead of hours, a week of
    watching in half a minute. What that costs in certainty is stated here and nowhere hidden."""
    return {
        # The desk's tickets vary so much that even right answers to like ones agree in half their fields only; the
        # defaults look for a larger gap than can open up below that.
        "ingest": {"abuse": {"near_input": 0.3, "min_gap": 0.08}},
        "snapshot": {"validation_share": 0.07, "rolling_share": 0.25, "frozen_share": 0.05},
        "training": {
            "methods": ["sft-lora", "sft-dpo-lora", "sft-kto-lora"],
            "recipes": {name: {"name": name, "stages": _stages(name)} for name in _RECIPES},
        },
        "evaluation": {
            "max_new_tokens": MAX_TOKENS,
            "noise_items": 8,
            "report_examples": 4,
            "seed_twin_nights": 0,
            "prompt_candidates": 2,
            "prompt_items": 6,
        },
        # One night, not a year of them: a wrong promotion in 20 such nights.
        "gate": {"alpha_night": 0.05, "min_units": 30},
        "canary": {
            "steps": [0.5],
            "step_seconds": 0.0,
            "step_units": 10,
            "minimum_seconds": 20.0,
            "deadline_seconds": 900.0,
            "margin": 0.1,
            "holdback": 0.0,
            "window_seconds": 15.0,
        },
    }


def _free(preferred: int) -> int:
    """The port, or another one when somebody has it."""
    if not port_taken(_HOST, preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
