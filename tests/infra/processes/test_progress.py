"""Progress of stages and evaluations: two kinds of lines, one reader, and no line passed on twice."""

from __future__ import annotations

import json
from pathlib import Path

from infra.processes.progress import FILE, ProgressFollower, ProgressLine, ProgressWriter, last_progress, read_progress


def test_a_stages_line_is_written_as_it_was_and_keeps_further_measures(tmp_path: Path) -> None:
    written = {
        "step": 3, "total": 9, "loss": 1.5, "lr": 1e-4, "tokens": 70, "seconds": 0.25, "eval_loss": None, "kl": 0.1,
    }  # fmt: skip
    (tmp_path / FILE).write_text(json.dumps(written) + "\n" + '{"step": 4, "to')
    [line] = read_progress(tmp_path / FILE)
    assert (line.done, line.total, line.loss) == (3, 9, 1.5)
    assert json.loads(line.as_stage_json()) == written and list(json.loads(line.as_stage_json())) == list(written)
    assert last_progress(tmp_path / FILE) == line and last_progress(tmp_path / "none") is None


def test_an_evaluations_lines_are_read_as_they_grow(tmp_path: Path) -> None:
    got: list[ProgressLine] = []
    follower = ProgressFollower(tmp_path / FILE, got.append)
    follower.look()
    writer = ProgressWriter(tmp_path / FILE, 4)
    writer.phase("answers")
    follower.look()
    writer.phase("judging")
    follower.look()
    assert [(line.done, line.total, line.phase) for line in got] == [(0, 4, "answers"), (0, 4, "judging")]
    assert json.loads((tmp_path / FILE).read_text().splitlines()[0]) == {"done": 0, "total": 4, "phase": "answers"}


def test_a_resumed_stage_that_writes_its_lines_again_is_followed_once(tmp_path: Path) -> None:
    steps: list[int] = []
    follower = ProgressFollower(tmp_path / FILE, lambda line: steps.append(line.done))
    for written in ((1, 2, 3), (1,), (1, 2), (1, 2, 3, 4)):
        (tmp_path / FILE).write_text("".join(f'{{"step": {step}, "total": 4}}\n' for step in written))
        follower.look()
    assert steps == [1, 2, 3, 4]
