"""Which examples a stage sees how often: tasks by temperature, shares of replay."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import UserError
from tests.training.stages.test_run import spec
from tests.training.world import GOOD, example, job_for
from training.objectives import objective_named
from training.recipes.mixture import Mixture, Replay, drawn, probabilities, read_general, with_replay
from training.stages.dataset import read_dataset
from training.stages.run import run_stage


def test_probabilities_follow_size_weight_and_temperature() -> None:
    counts = {"a": 900, "b": 100}
    assert probabilities(counts, Mixture()) == pytest.approx({"a": 0.9, "b": 0.1})
    assert probabilities(counts, Mixture(temperature=2)) == pytest.approx({"a": 0.75, "b": 0.25})
    assert probabilities(counts, Mixture(temperature=1000))["b"] == pytest.approx(0.5, abs=0.01)
    assert probabilities(counts, Mixture(weights={"b": 9})) == pytest.approx({"a": 0.5, "b": 0.5})
    assert probabilities(counts, Mixture(weights={"b": 0})) == {"a": 1.0, "b": 0.0}
    with pytest.raises(UserError, match="names task 'c', which no example has"):
        probabilities(counts, Mixture(weights={"c": 1}))
    with pytest.raises(UserError, match="leave no task"):
        probabilities({"a": 1}, Mixture(weights={"a": 0}))


@settings(max_examples=12)
@given(st.sampled_from([1.0, 2.0, 5.0]), st.integers(0, 5))
def test_tasks_are_drawn_as_often_as_they_should(temperature: float, seed: int) -> None:
    tasks = ["a"] * 300 + ["b"] * 60 + ["c"] * 12
    mixture = Mixture(temperature=temperature)
    order = drawn(tasks, mixture, 10, seed)
    assert len(order) == 3720
    seen = Counter(tasks[i] for i in order)
    for task, chance in probabilities(Counter(tasks), mixture).items():
        deviation = (3720 * chance * (1 - chance)) ** 0.5
        assert abs(seen[task] - 3720 * chance) < 5 * deviation
    often = Counter(order)
    for task in "abc":  # every example of a task comes before any comes once more
        times = [often[i] for i, t in enumerate(tasks) if t == task]
        assert max(times) - min(times) <= 1
    assert order == drawn(tasks, mixture, 10, seed)


@given(st.integers(1, 200), st.integers(0, 50), st.integers(0, 50), st.sampled_from([0.0, 0.1, 0.3]), st.integers(0, 3))
def test_replay_keeps_its_share_and_the_order_of_the_rest(
    own: int, older: int, general: int, share: float, seed: int
) -> None:
    order = drawn([""] * own, None, 2, seed)
    mixed = with_replay(order, own, [(older, share), (general, 0.2)], seed)
    assert [i for i in mixed if i < own] == order
    by_pool = Counter("older" if own <= i < own + older else "general" if i >= own + older else "own" for i in mixed)
    shares = (share if older else 0) + (0.2 if general else 0)
    whole = len(order) / (1 - shares)
    assert by_pool["older"] == (round(whole * share) if older else 0)
    assert by_pool["general"] == (round(whole * 0.2) if general else 0)
    assert max(mixed) < own + older + general


def test_general_sets_come_in_three_forms_and_others_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "general.jsonl"
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    rows = [{"text": "a book"}, {"messages": turns}, {"prompt": "2+2?", "completion": "4"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    document, chat, pair = read_general(file)
    assert (document.shape, document.text) == ("document", "a book")
    assert (chat.completion, pair.completion) == ("hello", "4") and chat.messages[0].content == "hi"
    longer = [{"role": "assistant", "content": "welcome"}, *turns, {"role": "user", "content": "and?"}, turns[1]]
    file.write_text(json.dumps({"messages": longer}) + "\n")
    assert [len(one.messages) for one in read_general(file)] == [2, 4], "each answer, but the greeting answers nobody"
    file.write_text(json.dumps({"question": "?"}) + "\n")
    with pytest.raises(UserError, match=r"general.jsonl:1 is not a general example"):
        list(read_general(file))


def test_replay_that_there_is_nothing_for_is_said_and_recorded(
    tmp_path: Path, tiny_base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [example(i, "completion", completion=GOOD) for i in range(8)]
    rows += [example(i, "preference", chosen=GOOD, rejected="no") for i in range(8)]
    for name in ("train.jsonl", "validation.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def said(objective: str, replay: Replay | None) -> dict[str, str]:
        caplog.clear()
        job = job_for(spec(objective), tmp_path, tiny_base, replay=replay)
        found = dict(read_dataset(job, objective_named(objective), objective_named(objective).options()).not_replayed)
        assert len([r for r in caplog.records if "replay was asked for" in r.getMessage()]) == bool(found)
        return found

    nothing = "there is no replay.general_file, and "
    assert said("sft", None) == {}
    assert said("sft", Replay(general=0)) == {}
    assert said("sft", Replay()) == {"general": nothing + "the snapshot holds no documents"}
    books = tmp_path / "books.jsonl"
    books.write_text(json.dumps({"text": "a book"}) + "\n")
    assert said("sft", Replay(general_file=books)) == {}
    assert said("dpo", Replay()) == {"general": nothing + "dpo replays no documents of the snapshot"}
    assert said("dpo", Replay(general_file=books)) == {
        "general": "books.jsonl holds nothing that dpo can read (shapes: preference)"
    }

    job = job_for(spec("sft"), tmp_path, tiny_base, replay=Replay(recent_days=30))
    record = run_stage(job)
    assert record.key == job.key and record.result["replayed"] == {"earlier": 0, "general": 0}
    told = {name: why for name, why in record.config["chosen"].items() if name.startswith("replay.")}
    assert told == {
        "replay.earlier": "none: no example is older than the last 30 days",
        "replay.general": f"none: {nothing}the snapshot holds no documents",
    }
    assert record.config["chosen"].keys() > told.keys()  # beside what was left to a rule


def test_tasks_and_replay_are_part_of_the_stage_and_of_its_record(tmp_path: Path, tiny_base: Path) -> None:
    general = tmp_path / "general.jsonl"
    general.write_text("".join(json.dumps({"text": f"page {i} of the manual"}) + "\n" for i in range(20)))
    rows = [example(i, "completion", completion=GOOD, task="sort" if i % 4 else "refuse") for i in range(12)]
    rows += [
        example(i, "completion", completion=GOOD, task="sort", created_at="2025-06-01T00:00:00Z") for i in range(20, 26)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:6]))
    replay = Replay(recent_days=30, earlier=0.2, general=0.2, general_file=general)
    asked = spec("sft", mixture={"temperature": 2.0})
    job = job_for(asked, tmp_path, tiny_base, replay=replay)
    record = run_stage(job)
    assert record.result["examples"] == 12 and record.result["replayed"] == {"earlier": 6, "general": 20}
    assert record.result["steps"] == 5  # 12 of its own, 4 and 4 replayed
    assert set(record.result["validation_metrics"]) == {"loss", "loss/refuse", "loss/sort"} - {"loss"}
    without = job_for(asked, tmp_path, tiny_base)
    assert without.key != job.key and without.key != job_for(spec("sft"), tmp_path, tiny_base).key
    moved = tmp_path / "elsewhere.jsonl"
    general.rename(moved)
    assert job_for(asked, tmp_path, tiny_base, replay=replay.model_copy(update={"general_file": moved})).key == job.key
    with pytest.raises(UserError, match="does not exist"):
        job_for(asked, tmp_path, tiny_base, replay=replay)
