"""Holding releases up by hand, from the command line: each word is one ledger line, and what cannot be is said."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.canary.policy import CanaryPolicy
from deploy.ledger.evidence import Override, Proof
from deploy.ledger.ledger import current, history
from deploy.release.lifecycle import start
from deploy.release.opening import Releases
from flows.config.load import load_config
from infra.database.open import open_database
from tests.deploy.stages import published
from tests.flows.world import ratchet, write_pipeline


def test_a_person_withdraws_pauses_bars_and_lets_go(tiny_base: Path, tmp_path: Path) -> None:
    file = write_pipeline(tmp_path, tiny_base)
    config = load_config(file)
    engine, why = open_database(config.places), ("--reason", "price list changes", "--json")
    start(engine, "default", "base-1")
    one, two = published(tmp_path, "one"), published(tmp_path, "two")
    Releases(
        engine,
        "default",
        versions_dir=tmp_path / "versions",
        policy=CanaryPolicy(steps=(0.1,), shadow_share=0.5),
        prove=lambda version: Proof(),
    ).open(one, actor="ada", override=Override(actor="ada", reason="a try"))
    assert current(engine, "default").gated == one
    assert json.loads(ratchet("withdraw", *why, config=file).stdout)["version"] == one
    assert current(engine, "default").gated is None and current(engine, "default").barred == {}
    again = ratchet("withdraw", *why, config=file, check=False)
    assert again.returncode == 2 and "no open canary to withdraw" in again.stderr
    ratchet("pause", *why, "--hours", "2", config=file)
    assert current(engine, "default").paused_until is not None
    ratchet("resume", *why, config=file)
    ratchet("bar", two, *why, config=file)
    assert list(current(engine, "default").barred) == [two]
    ratchet("unbar", two, *why, config=file)
    lines = history(engine, "default")
    assert [line.action for line in lines][-5:] == ["withdrawn", "paused", "resumed", "barred", "unbarred"]
    assert {line.reason for line in lines[-5:]} == {"price list changes"}
