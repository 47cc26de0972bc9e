"""A pipeline that 0.1.0 left with a canary open is migrated, starts, answers, rolls back, and has its next night."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.ledger.ledger import current, history
from flows.config.load import load_config
from flows.night.record import nights_of
from flows.stack.secrets_file import SECRET_NAMES
from infra.database.open import open_database
from tests.flows.world import ratchet, tell_feedback
from tests.old_pipeline import SALT, lay_out

pytestmark = pytest.mark.slow


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    before = {name: os.environ.pop(name, None) for name in SECRET_NAMES}
    os.environ["RATCHET_USER_SALT"] = SALT
    file = lay_out(tmp_path)
    yield file
    ratchet("down", config=file)
    os.environ.pop("RATCHET_USER_SALT", None)
    os.environ.update({name: value for name, value in before.items() if value is not None})


def test_a_pipeline_of_0_1_0_goes_on(file: Path) -> None:
    config = load_config(file)
    ratchet("migrate", config=file)
    ratchet("up", config=file)
    engine = open_database(config.places)
    canary, champion = current(engine, "default").canary, current(engine, "default").champion
    key = json.loads((config.places.run_dir / "keys.json").read_text())["default"]["app"]
    answered = set()
    with httpx.Client(
        base_url=config.places.gateway_url, headers={"Authorization": f"Bearer {key}"}, timeout=300
    ) as client:
        for number in range(20):
            words = {"role": "user", "content": f"where is letter {number}?"}
            body = {"model": "desk", "messages": [words], "user": f"new-{number}", "max_tokens": 4}
            answer = client.post("/v1/chat/completions", json=body).raise_for_status()
            answered.add(answer.headers.get("x-ratchet-version") or answer.json()["model"])
    assert answered, "it answers"
    ratchet("rollback", "--reason", "a test of going back", config=file)
    assert (current(engine, "default").canary, current(engine, "default").champion) == (None, champion)
    assert canary in current(engine, "default").barred
    ratchet("resume", "--reason", "it was a test", config=file)
    tell_feedback(config, conversations=40, first=200)
    night = json.loads(ratchet("run", "nightly", "--json", config=file).stdout)
    assert night["state"] == "done"
    assert len(nights_of(config, "default")) == 2
    actions = [line.action for line in history(engine, "default")]
    assert actions[:5] == ["baseline", "gated", "canary", "rolled_back", "resumed"]
