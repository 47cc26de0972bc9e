"""The quickstart, word for word: its commands in its order, on a file of corrections, until the client gets an answer.

The page's `make setup` is this environment, and the base model is the tiny one unless RATCHET_QUICKSTART_BASE=real.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.flows.world import ROOT, free_ports

pytestmark = pytest.mark.slow

TOPICS = ("billing", "router", "delivery", "parcel", "refund", "portal", "order", "login")


def commands() -> list[str]:
    page = (ROOT / "docs" / "quickstart.md").read_text()
    block = re.search(r"<!-- quickstart -->\n```console\n(.*?)```", page, flags=re.DOTALL)
    assert block is not None
    return [line[2:] for line in block.group(1).splitlines() if line.startswith("$ ")]


def test_a_newcomer_needs_six_commands_at_most_and_no_code() -> None:
    assert len(commands()) <= 6
    assert all(command.split()[0] in ("make", ".venv/bin/ratchet") for command in commands())


def test_the_quickstart_ends_with_an_answer_of_the_promoted_version(tiny_base: Path, tmp_path: Path) -> None:
    rows = [
        {
            "question": f"ticket {n * 7919}: the {TOPICS[n % 8]} of customer {n} is wrong",
            "answer": f"no idea about {n}",
            "corrected": f"category {TOPICS[n % 8]}",
        }
        for n in range(320)
    ]
    (tmp_path / "corrections.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said: dict[str, str] = {}
    try:
        for command in commands():
            words = shlex.split(command)
            if words[0] == "make":
                continue  # the environment this runs in
            said[words[1]] = _run(words[1:], tmp_path)
            if words[1] == "init":
                _small_machine(tmp_path / "ratchet.yaml", tiny_base)
        assert "promote" in said["run"], said["run"]
        status = json.loads(_run(["status", "--json"], tmp_path))
        challenger = status["releases"]["default"]["canary"]
        assert challenger, said["status"]
        assert re.search(r"^\((v|base-)[0-9a-f]+\)$", said["ask"].strip().splitlines()[-1])
        asked = json.loads(_run(["ask", "hello", "--model", challenger, "--json"], tmp_path))
        assert asked["version"] == challenger
    finally:
        _run(["down"], tmp_path)


def _run(words: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=3600,
    )  # fmt: skip
    assert done.returncode == 0, f"{words}: {done.stderr[-4000:]}"
    return done.stdout


def _small_machine(config: Path, base: Path) -> None:
    """Free ports, and the tiny model: what differs between this test and a newcomer's machine, and nothing else."""
    values = yaml.safe_load(config.read_text())
    names = ("gateway_port", "engine_port", "prefect_port", "mlflow_port")
    values["places"] = dict(zip(names, free_ports(4), strict=True))
    if os.environ.get("RATCHET_QUICKSTART_BASE") != "real":
        values["base_model"] = str(base)
        values["evaluation"] |= {"regression": False, "max_new_tokens": 8, "judges": []}
        values["gate"] |= {"forgetting": None}
        values["training"] |= {"dtype": "float32", "threads": 1}
        values["serving"] = {"dtype": "float32", "threads": 1}
    config.write_text(yaml.safe_dump(values, sort_keys=False))
