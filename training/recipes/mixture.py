"""Mix what a stage's steps are drawn from: tasks by temperature, and a replayed share of older and of general examples.

Several tasks: task t, with n examples, is drawn with probability proportional to weight x n^(1 / temperature) (Raffel
et al. 2020, arXiv:1910.10683, section 3.5.2; Conneau et al. 2020). 1 takes tasks by size; large values make all equal.

Replay: what is not rehearsed is forgotten. A share of every stage is taken from examples older than `recent_days` (all
of an earlier snapshot's rows are in today's, but for those that somebody took away or that the gate now examines; so
replay draws on today's file and never on an old one), and a share from a general set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, JsonValue

from infra.artifact import key_of
from infra.errors import UserError
from infra.settings import Config
from training.chat.template import answering_turns

if TYPE_CHECKING:
    from feedback.examples import Example
    from training.engines.native.packing.items import Item


class Mixture(Config):
    """How tasks are mixed."""

    temperature: float = Field(default=1.0, ge=1.0, le=1000.0)
    """1 draws tasks by their number of examples; larger values draw small tasks more often."""
    weights: Mapping[str, float] = {}
    """Task to a weight on top of that; 1 where none is given, 0 leaves a task out."""


class Replay(Config):
    """What is rehearsed so that it is not forgotten."""

    recent_days: float | None = Field(default=None, gt=0)
    """Train on the examples of so many days before the newest; older ones are replayed only. Default: on all."""
    earlier: float = Field(default=0.1, ge=0, lt=0.5)
    """Share of a stage's examples that are older ones, where `recent_days` leaves any out."""
    general: float = Field(default=0.1, ge=0, lt=0.5)
    """Share of a stage's examples from the general set, where there is one: without it nothing general is rehearsed,
    and the stage's log and record say so."""
    general_file: Path | None = None
    """JSONL of a general set: lines with `text`, with `messages` that end in an answer (every answer in them is
    rehearsed), or with `prompt` and `completion`. Default: the snapshot's documents, for objectives that can read
    them."""


class ReplaySource(Config):
    """The replay of one job: the settings, and the general file by what is in it."""

    recent_days: float | None = None
    """As in the settings."""
    earlier: float = 0.0
    """As in the settings."""
    general: float = 0.0
    """As in the settings."""
    file: Path | None = None
    """The general set. A place."""
    digest: str | None = None
    """Digest of that file."""

    def identity(self) -> dict[str, JsonValue]:
        """Say what of it is part of a key."""
        identity: dict[str, JsonValue] = self.model_dump(mode="json", exclude={"file"})
        return identity


def source_of(replay: Replay) -> ReplaySource:
    """Make the replay of a job.

    Raises:
        UserError: the general file does not exist.
    """
    from infra.artifact import digest_file

    file = replay.general_file.expanduser().absolute() if replay.general_file is not None else None
    if file is not None and not file.is_file():
        raise UserError(f"replay.general_file {file} does not exist; give a JSONL file, or leave it out")
    return ReplaySource(
        recent_days=replay.recent_days,
        earlier=replay.earlier,
        general=replay.general,
        file=file,
        digest=digest_file(file) if file is not None else None,
    )


def read_general(path: Path) -> Iterator[Example]:
    """Read the examples of a general set.

    Raises:
        UserError: a line is none of the three forms.
    """
    from pydantic import ValidationError

    from feedback.examples import Example

    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                made = [Example.model_validate(row, extra="forbid") for row in _rows(json.loads(line), number)]
            except (ValueError, KeyError, TypeError, ValidationError) as error:
                raise UserError(
                    f"{path}:{number} is not a general example ({error}); expected text, or messages that end in an "
                    "answer, or prompt and completion"
                ) from error
            yield from made


def _rows(given: Mapping[str, Any], number: int) -> list[Mapping[str, Any]]:
    """The examples of one line: of a conversation one for each answer, for its author means them all."""
    if "shape" in given:
        return [given]
    row: dict[str, Any] = {
        "example_id": f"general-{number}-{key_of(given)[:12]}",
        "tenant": "general",
        "subject": f"general-{number}",
        "group": f"general-{number}",
        "reason": "general",
        "created_at": datetime.fromtimestamp(0, UTC),
    }
    if "text" in given:
        return [{**row, "shape": "document", "text": given["text"]}]
    row["shape"] = "completion"
    if "messages" in given:
        *before, last = turns = given["messages"]
        if last["role"] != "assistant" or not before:
            raise ValueError("the messages end in no answer")
        answers = [at for at in answering_turns(turns) if turns[at].get("content") or at == len(before)]
        name = row.pop("example_id")
        return [
            {**row, "example_id": f"{name}-{at}", "messages": turns[:at], "completion": turns[at]["content"]}
            for at in answers
        ]
    prompt = [{"role": "user", "content": given["prompt"]}]
    return [{**row, "messages": prompt, "completion": given["completion"]}]


def probabilities(counts: Mapping[str, int], mixture: Mixture) -> dict[str, float]:
    """Compute task to the probability with which an example of it is drawn.

    Raises:
        UserError: a weight is for a task that is not there, or none is left.
    """
    unknown = sorted(set(mixture.weights) - set(counts))
    if unknown:
        raise UserError(
            f"mixture.weights names task {unknown[0]!r}, which no example has; there are: "
            f"{', '.join(repr(t) for t in sorted(counts))}"
        )
    weighted = {t: mixture.weights.get(t, 1.0) * n ** (1 / mixture.temperature) for t, n in counts.items() if n}
    total = sum(weighted.values())
    if total <= 0:
        raise UserError("mixture.weights leave no task; give at least one of them a weight above 0")
    return {task: w / total for task, w in weighted.items()}


def shuffled_epochs(count: int, epochs: float, seed: int) -> list[int]:
    """List indices of items in the order in which they are trained: a fresh shuffle for each epoch, fixed by `seed`.

    The whole order is known beforehand, so a resumed stage goes on exactly where it was.
    """
    import numpy as np

    total = max(1, round(count * epochs))
    indices: list[int] = []
    epoch = 0
    while len(indices) < total:
        indices += np.random.default_rng([seed, epoch]).permutation(count).tolist()
        epoch += 1
    return indices[:total]


def drawn(tasks: Sequence[str], mixture: Mixture | None, epochs: float, seed: int) -> list[int]:
    """Draw indices in the order of training: by task where a mixture asks for it, else a fresh shuffle for each epoch.

    Within a task every example comes once before any comes twice.
    """
    import numpy as np

    if mixture is None:
        return shuffled_epochs(len(tasks), epochs, seed)
    by_task: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        by_task.setdefault(task, []).append(index)
    chance = probabilities({task: len(indices) for task, indices in by_task.items()}, mixture)
    names = sorted(task for task in chance if chance[task] > 0)
    total = max(1, round(len(tasks) * epochs))
    draws = np.random.default_rng([seed, 7]).choice(len(names), size=total, p=[chance[name] for name in names])
    wanted = {name: int((draws == at).sum()) for at, name in enumerate(names)}
    queues = {
        name: iter(
            [by_task[name][i] for i in shuffled_epochs(len(by_task[name]), wanted[name] / len(by_task[name]) + 1, seed)]
        )
        for name in names
    }
    return [next(queues[names[at]]) for at in draws]


def with_replay(own: list[int], count: int, pools: Sequence[tuple[int, float]], seed: int) -> list[int]:
    """Mix into the `own` order replayed indices, evenly, at random places.

    Args:
        own: indices of the stage's own items, in order; count: how many there are. The pools' items follow them.
        pools: (number of items, share of the mixed whole) of each pool, in the order they follow the own items.
    """
    import numpy as np

    shares = sum(share for size, share in pools if size)
    if not shares:
        return own
    total = len(own) / (1 - shares)
    first = count
    replayed: list[int] = []
    for place, (size, share) in enumerate(pools):
        wanted = round(total * share) if size else 0
        if wanted:
            replayed += [first + index for index in shuffled_epochs(size, wanted / size, seed + 1000 * (place + 1))]
        first += size
    random = np.random.default_rng([seed, 11])
    slots = set(random.choice(len(own) + len(replayed), size=len(replayed), replace=False).tolist())
    random.shuffle(replayed)
    mine, theirs = iter(own), iter(replayed)
    return [next(theirs) if at in slots else next(mine) for at in range(len(own) + len(replayed))]


def why_not_replayed(
    replay: ReplaySource, *, earlier: int, general: int, objective: str, shapes: Sequence[str], documents: bool
) -> dict[str, str]:
    """Tell why nothing is rehearsed of a kind that the job asks for, by kind; kinds that there are items of are not in.

    Args:
        earlier, general: how many items there are of each kind.
        objective: its name; shapes: what it can read of a general set; documents: whether the snapshot's documents are
            its general set where no file is given.
    """
    why = {}
    if replay.earlier and replay.recent_days is not None and not earlier:
        why["earlier"] = f"no example is older than the last {replay.recent_days:g} days"
    if replay.general and not general:
        if replay.file is not None:
            why["general"] = f"{replay.file.name} holds nothing that {objective} can read (shapes: {', '.join(shapes)})"
        elif documents:
            why["general"] = "there is no replay.general_file, and the snapshot holds no documents"
        else:
            why["general"] = f"there is no replay.general_file, and {objective} replays no documents of the snapshot"
    return why


def is_recent(items: Sequence[Item], recent_days: float | None) -> list[bool]:
    """Tell whether each item is of the last days before the newest."""
    if recent_days is None or not items:
        return [True] * len(items)
    oldest = max(item.made_at for item in items) - timedelta(days=recent_days).total_seconds()
    return [item.made_at >= oldest for item in items]
