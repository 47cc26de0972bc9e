"""A file in each form that other tools write, and the public data, to a trained challenger, by command line alone."""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from feedback.formats import FORMATS as REGISTERED
from tests.feedback.formats.test_formats import attribute
from tests.feedback.world import ticket
from tests.flows.world import Stack, ratchet, start_stack

ROWS = 60
Made = Callable[[str, str, int], dict[str, Any]]
"""(question, right answer, number) -> one row as the tool writes it."""


def _chat(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _span(question: str, answer: str, number: int) -> dict[str, Any]:
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.conversation.id": f"k{number}",
        "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": question}]}]),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": answer}]}]),
    }
    stars = {"gen_ai.evaluation.name": "stars", "gen_ai.evaluation.score.value": 5}
    event = {"name": "gen_ai.evaluation.result", "attributes": [attribute(k, v) for k, v in stars.items()]}
    span: dict[str, Any] = {"traceId": f"t{number}", "spanId": f"s{number}", "endTimeUnixNano": "1767225600000000000"}
    span |= {"attributes": [attribute(k, v) for k, v in said.items()], "events": [event]}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


# dialect -> (its row, recipe that can learn from it)
FORMS: dict[str, tuple[Made, str]] = {
    "openai": (lambda q, a, n: {"messages": _chat(q, a)}, "tiny-sft"),
    "openai_dpo": (
        lambda q, a, n: {
            "input": {"messages": _chat(q, a)[:1]},
            "preferred_output": _chat(q, a)[1:],
            "non_preferred_output": _chat(q, f"I can't say, {n}")[1:],
        },
        "tiny-dpo",
    ),
    "alpaca": (lambda q, a, n: {"instruction": q, "input": "", "output": a}, "tiny-sft"),
    "sharegpt": (
        lambda q, a, n: {"id": f"g{n}", "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]},
        "tiny-sft",
    ),
    "trl_preference": (lambda q, a, n: {"prompt": q, "chosen": a, "rejected": f"I can't say, {n}"}, "tiny-dpo"),
    "trl_kto": (
        lambda q, a, n: {"prompt": q, "completion": a if n % 2 else "No.", "label": bool(n % 2)},
        "tiny-kto",
    ),
    "trl_sft": (lambda q, a, n: {"prompt": q, "completion": a}, "tiny-sft"),
    "langfuse": (
        lambda q, a, n: {
            "id": f"t{n}", "timestamp": "2026-01-02T03:04:05.000Z", "userId": f"u{n}", "sessionId": f"s{n}",
            "input": {"messages": _chat(q, a)[:1]}, "output": _chat(q, "I can't say.")[1],
            "scores": [{"id": f"c{n}", "name": "c", "stringValue": a, "dataType": "CORRECTION", "source": "API"}],
        },
        "tiny-sft",
    ),
    "langsmith": (
        lambda q, a, n: {
            "id": f"r{n}", "run_type": "chain", "start_time": "2026-01-02T03:04:05",
            "inputs": {"question": q}, "outputs": {"answer": "I can't say."},
            "extra": {"metadata": {"user_id": f"u{n}", "session_id": f"s{n}"}},
            "feedback": [{"id": f"f{n}", "key": "user_score", "score": 0, "correction": {"output": a}}],
        },
        "tiny-sft",
    ),
    "otel": (_span, "tiny-sft"),
    "documents": (
        lambda q, a, n: {"text": f"{q} What our people answered then, in the file {n}, was this: {a}"},
        "tiny-pretraining",
    ),
}  # fmt: skip

UNJUDGED = {"documents"}
"""Forms that hold no right answer to a question: what they taught is examined on another file's."""

# public file -> (what the command needs besides, recipe)
PUBLIC = {
    "instructions.json": ([], "tiny-sft"),
    "preferences.json": ([], "tiny-dpo"),
    "gsm8k_test.jsonl": (["--map", "prompt=question", "--map", "reference=answer"], "tiny-sft"),
    "wiki_corpus.txt": ([], "tiny-pretraining"),
}

STAGES = {
    "tiny-sft": {"objective": "sft"},
    "tiny-dpo": {"objective": "dpo"},
    "tiny-kto": {"objective": "kto"},
    "tiny-pretraining": {"objective": "pretraining"},
}


def tenant_of(name: str) -> str:
    return name.partition(".")[0].replace("_", "-")


def test_every_dialect_has_a_file_here() -> None:
    assert FORMS.keys() == REGISTERED.keys()


@pytest.fixture(scope="module")
def stack(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    tenants = [tenant_of(name) for name in (*FORMS, *PUBLIC, "table")]
    recipes = {
        name: {"name": name, "stages": [{**stage, "epochs": 0.5, "batch_size": 4}]} for name, stage in STAGES.items()
    }
    folder = tmp_path_factory.mktemp("import")
    before = yaml.safe_load(Stack(folder, tiny_base).file.read_text())["training"]
    training = {**before, "methods": ["tiny-sft"], "recipes": recipes}
    running = start_stack(folder, tiny_base, tenants=tenants, training=training)
    yield running
    running.stop()


def to_challenger(stack: Stack, files: list[Path], tenant: str, recipe: str, *options: str) -> None:
    """Look, import, train; the night has a trained challenger and a verdict about it."""
    for file in files:
        said = ("feedback", "import", str(file), "--tenant", tenant, "--trusted", "--json", *options)
        dry = json.loads(ratchet(*said, "--dry-run", config=stack.file).stdout)
        # Of one public file six pairs have twice the same answer.
        assert not dry["rejects"] and dry["set_aside"].keys() <= {"empty-preference"}, dry
        assert sum(dry["set_aside"].values()) <= ROWS / 10 and sum(dry["shapes"].values()) >= ROWS, dry
        assert all(dry["samples"].values()), dry
        done = json.loads(ratchet(*said, config=stack.file).stdout)["counts"]
        repeated = done.pop("duplicates")  # rows that stand in a file twice, as they do in public ones
        assert done == {name: count for name, count in dry["counts"].items() if name != "duplicates"}
        assert repeated < ROWS
    night = ("run", "nightly", "--tenant", tenant, "--recipe", recipe, "--json")
    found = json.loads(ratchet(*night, config=stack.file).stdout)
    assert found["state"] == "done" and found["challengers"].keys() == {recipe}, found
    assert found["challengers"][recipe].startswith("v"), found
    assert found["decision"] in ("promote", "reject", "inconclusive"), found


def written(folder: Path, name: str, make: Made, seed: int) -> Path:
    chance = random.Random(seed)
    lines = [json.dumps(make(*ticket(chance), number)) for number in range(ROWS)]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder / f"{name}.jsonl"


@pytest.mark.slow
@pytest.mark.parametrize("dialect", FORMS)
def test_a_tools_file_becomes_a_challenger(stack: Stack, dialect: str, tmp_path: Path) -> None:
    make, recipe = FORMS[dialect]
    files = [written(tmp_path, dialect, make, 7)]
    if dialect in UNJUDGED:
        files.append(written(tmp_path, "examined_on", FORMS["trl_sft"][0], 9))
    to_challenger(stack, files, tenant_of(dialect), recipe)


@pytest.mark.slow
def test_a_table_with_columns_of_its_own_becomes_a_challenger(stack: Stack, tmp_path: Path) -> None:
    chance = random.Random(8)
    with (tmp_path / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["asked", "bot said", "agent sent"])
        table.writerows([question, "no idea", right] for question, right in (ticket(chance) for _ in range(ROWS)))
    mapping = ("--map", "prompt=asked", "--map", "answer=bot said", "--map", "edit=agent sent")
    to_challenger(stack, [tmp_path / "table.csv"], "table", "tiny-sft", *mapping)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLIC)
def test_public_data_become_a_challenger(stack: Stack, name: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("RATCHET_DATA", "nowhere"))
    if not (folder / name).exists():
        pytest.skip("the public data are not here (set RATCHET_DATA)")
    options, recipe = PUBLIC[name]
    files = [folder / name]
    if name.endswith(".txt"):
        files.append(written(tmp_path, "examined_on", FORMS["trl_sft"][0], 9))
    to_challenger(stack, files, tenant_of(name), recipe, *options)
