"""A small pipeline to run flows on: a tiny model, and a desk's feedback written into the store as the gateway would."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from feedback.events import Edit, Feedback, Interaction, Message, Thumb
from feedback.store import Store
from flows.config import PipelineConfig, load_config
from tasks.opened import database

TOPICS = ("billing", "router", "delivery", "parcel", "refund", "portal", "order", "login")
START = datetime(2026, 1, 5, 9, tzinfo=UTC)


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
    store = Store(database(config.places))
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
            messages=(Message(role="user", content=f"ticket {number * 7919}: the {topic} of customer {number} is wrong"),),
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
                    value=value,
                    created_at=at + timedelta(seconds=30),
                    source="gateway",
                )
            )


def load(path: Path) -> PipelineConfig:
    return load_config(path)
