"""A small pipeline to run flows on: a tiny model, and a desk's feedback written into the store as the gateway would."""

from __future__ import annotations

import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import yaml

from feedback.events import Edit, Feedback, Interaction, Message, Thumb
from feedback.store.store import Store
from flows.config.load import load_config
from flows.config.pipeline import PipelineConfig
from flows.stack.secrets_file import load_secrets
from infra.database.open import open_database
from infra.processes.stack import down

TOPICS = ("billing", "router", "delivery", "parcel", "refund", "portal", "order", "login")
T = TypeVar("T")
START = datetime(2026, 1, 5, 9, tzinfo=UTC)


ONE_RECIPE = {
    "methods": ["tiny-sft"],
    "recipes": {"tiny-sft": {"name": "tiny-sft", "stages": [{"objective": "sft", "epochs": 2, "batch_size": 4}]}},
    "minimum_examples": 2,
    "threads": 1,
    "dtype": "float32",
    "checkpoint_seconds": 0,
}
"""A training section whose nights train one challenger in one stage."""


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def write_pipeline(folder: Path, base: Path, **places: object) -> Path:
    """A config for the tiny model: two quick recipes, a small gate, everything below ``folder``."""
    names = ("gateway_port", "engine_port", "prefect_port", "mlflow_port")
    values = {
        "pipeline": "desk",
        "base_model": str(base),
        "places": {
            "home": "home",
            "cache": str(folder / "cache"),
            **dict(zip(names, free_ports(4), strict=True)),
            **places,
        },
        "snapshot": {"rolling_share": 0.25, "frozen_share": 0.1},
        "training": {
            "methods": ["tiny-sft", "tiny-kto"],
            "recipes": {
                "tiny-sft": {"name": "tiny-sft", "stages": [{"objective": "sft", "epochs": 2, "batch_size": 4}]},
                "tiny-kto": {
                    "name": "tiny-kto",
                    "stages": [
                        {"objective": "sft", "epochs": 2, "batch_size": 4},
                        {"objective": "kto", "starts_from": "previous", "epochs": 1, "batch_size": 4},
                    ],
                },
            },
            "minimum_examples": 2,
            "threads": 1,
            "dtype": "float32",
            "checkpoint_seconds": 0,
        },
        "evaluation": {
            "metrics": ["loss", "exact_match", "length", "repetition"],
            "judges": [],
            "max_new_tokens": 8,
            "regression": False,
            "noise_items": 2,
            "seed_twin_nights": 0,
        },
        "gate": {"primary": "loss", "guards": [], "forgetting": None, "min_units": 4, "alpha_night": 0.4},
        "serving": {"threads": 1, "dtype": "float32"},
        "schedule": {"nightly": "0 3 * * *", "watch": None},
    }
    path = folder / "ratchet.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def tell_feedback(config: PipelineConfig, *, conversations: int = 60, first: int = 0) -> None:
    """Write interactions with thumbs and trusted edits, each in a conversation of its own."""
    store = Store(open_database(config.places))
    for number in range(first, first + conversations):
        topic = TOPICS[number % len(TOPICS)]
        at = START + timedelta(minutes=number)
        name = f"i{number}"
        interaction = Interaction(
            interaction_id=name,
            tenant="default",
            user=f"user-{number}",
            session=f"session-{number}",
            version="base",
            messages=(
                Message(role="user", content=f"ticket {number * 7919}: the {topic} of customer {number} is wrong"),
            ),
            answer=f"no idea about {number}",
            created_at=at,
            latency_ms=5.0,
        )
        assert store.record_interaction(interaction)
        edit = Edit(text=f"category {topic}")
        for kind, value, who in (("thumb", Thumb(up=number % 3 == 0), f"user-{number}"), ("edit", edit, "agent-1")):
            store.record_feedback(
                Feedback(
                    event_id=f"{name}-{kind}",
                    tenant="default",
                    interaction_id=name,
                    actor=who,
                    trusted=kind == "edit",
                    kind=value.kind,
                    value=value,
                    created_at=at + timedelta(seconds=30),
                    source="gateway",
                )
            )


ROOT = Path(__file__).parent.parent.parent


def ratchet(*words: str, config: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A `ratchet` command in a process of its own, as a person would give it."""
    command = [sys.executable, "-m", "flows.cli", *words, "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000)
    assert not check or done.returncode == 0, done.stderr[-4000:]
    return done


class Stack:
    """A pipeline whose servers run, and further pipelines that share them."""

    def __init__(self, folder: Path, base: Path, **sections: object) -> None:
        self.base = base
        self.file = write_pipeline(folder, base)
        if sections:
            values = yaml.safe_load(self.file.read_text())
            self.file.write_text(yaml.safe_dump({**values, **sections}, sort_keys=False))
        self.config = load_config(self.file)

    def neighbour(self, folder: Path, **sections: object) -> PipelineConfig:
        """A pipeline with a home and a database of its own on the same Prefect, MLflow and engine."""
        path = write_pipeline(
            folder, self.base, prefect_api_url=self.config.places.prefect_api, mlflow_url=self.config.places.mlflow
        )
        values = yaml.safe_load(path.read_text())
        values["serving"]["engine_url"] = self.config.places.engine_url
        values.update(sections)
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        config = load_config(path)
        # The engine asks for the key of the stack that it belongs to.
        load_secrets(self.config.places)
        load_secrets(config.places)
        tell_feedback(config)
        return config

    def stop(self) -> None:
        down(self.config.places.run_dir)


def start_stack(folder: Path, base: Path, **sections: object) -> Stack:
    stack = Stack(folder, base, **sections)
    ratchet("up", config=stack.file)
    load_secrets(stack.config.places)
    return stack
