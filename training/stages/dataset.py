"""Read a stage's dataset: its own items, what is rehearsed beside them, the held-out ones, and the order of it all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infra.errors import NotFound
from infra.settings import Config
from training.chat.template import Template
from training.engines.native.online.advantages import has_reference
from training.engines.native.packing.items import Item, TokenisedFile, load_items, save_items
from training.objectives import objective_named
from training.objectives.objective import Objective
from training.recipes.mixture import drawn, is_recent, read_general, why_not_replayed, with_replay
from training.stages.job import StageJob
from training.stages.tokenization import Tokeniser, read_examples, tokenizer_identity

if TYPE_CHECKING:
    from training.engines.native.online.rollouts import Rollouts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageDataset:
    """Items of one stage."""

    own: list[Item]
    """What the stage learns from."""
    pools: tuple[tuple[list[Item], float], ...]
    """What is rehearsed, with its share of the mixed whole: older examples, general ones."""
    validation: list[Item]
    """Held out."""
    left_out: dict[str, int]
    """Examples that nothing could be learned from, by reason."""
    not_replayed: dict[str, str]
    """Kind of replay that was asked for and that there is nothing of, to why."""

    @property
    def train(self) -> list[Item]:
        """Own items, then each pool's."""
        return [*self.own, *(item for pool, _ in self.pools for item in pool)]

    def order(self, job: StageJob, updates: int = 1) -> list[int]:
        """List indices into `train` in the order in which they are trained.

        Args:
            updates: each step's items come so many times in a row, for objectives that make several optimizer steps of
                one set of answers; a last step that is not full is then left out.
        """
        spec = job.spec
        assert spec.epochs and spec.batch_size, "the job's spec is resolved"
        tasks = [item.task for item in self.own]
        mine = drawn(tasks, spec.mixture, spec.epochs, job.seed)
        sizes = [(len(pool), share) for pool, share in self.pools]
        order = with_replay(mine, len(self.own), sizes, job.seed)
        if updates == 1:
            return order
        size = min(spec.batch_size, len(order))
        groups = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
        return [index for group in groups for _ in range(updates) for index in group]

    @property
    def replayed(self) -> dict[str, int]:
        """Kind of replay to how many items can be rehearsed."""
        return {name: len(pool) for name, (pool, _) in zip(("earlier", "general"), self.pools, strict=True)}


def read_dataset(job: StageJob, objective: Objective, options: Config) -> StageDataset:
    """Read the items of a job.

    Raises:
        NotFound: there is nothing to learn from.
    """
    from transformers import AutoTokenizer

    shapes = objective.learns_from(job.reward is not None)
    tokeniser = Tokeniser(
        Template(AutoTokenizer.from_pretrained(job.base.path, local_files_only=True)),
        identity=tokenizer_identity(job.base.path),
        max_length=job.spec.max_length,
        cache=job.cache,
    )
    train, validation = (
        tokeniser.tokenise(file, objective, options, shapes=shapes) for file in (job.train, job.validation)
    )
    items, held_out, left_out = train.items, validation.items, dict(train.left_out)
    if objective.online is not None and objective.online.grades and job.reward is None:
        ungraded = sum(not has_reference(item) for item in items)
        if ungraded:
            left_out["no reference to grade answers by"] = ungraded
        items, held_out = [i for i in items if has_reference(i)], [i for i in held_out if has_reference(i)]
    if not items:
        raise NotFound(
            f"{job.train} holds nothing that {objective.name} can learn from (left out: {left_out or 'nothing'}; "
            f"shapes wanted: {', '.join(shapes)}); collect more, or raise max_length"
        )
    for reason, count in left_out.items():
        log.warning("%d training examples left out: %s", count, reason)
    recent = is_recent(items, job.replay.recent_days)
    older = [item for item, new in zip(items, recent, strict=True) if not new]
    own = [item for item, new in zip(items, recent, strict=True) if new]
    general = _general(job, objective, options, tokeniser)
    pools = ((older, job.replay.earlier), (general, job.replay.general))
    missing = why_not_replayed(
        job.replay,
        earlier=len(older),
        general=len(general),
        objective=objective.name,
        shapes=(*objective.shapes, *objective.replay_shapes),
        documents="document" in objective.replay_shapes,
    )
    if missing:
        reasons = "; ".join(f"{kind}: {why}" for kind, why in missing.items())
        log.warning("replay was asked for and is left out, so what was known before may be forgotten: %s", reasons)
    return StageDataset(own, pools, held_out[: job.spec.validation_examples], left_out, missing)


def _general(job: StageJob, objective: Objective, options: Config, tokeniser: Tokeniser) -> list[Item]:
    """The general set as this objective can read it."""
    if not job.replay.general:
        return []
    file = job.replay.file
    items: list[Item] = []
    if file is not None:
        items += tokeniser.tokenise(file, objective, options, shapes=objective.shapes, read=read_general).items
    if "document" in objective.replay_shapes:
        reading = objective_named("pretraining")
        chunks = reading.options.model_validate({"chunk": min(512, job.spec.max_length)})
        read = read_general if file is not None else read_examples
        items += tokeniser.tokenise(file or job.train, reading, chunks, shapes=("document",), read=read).items
    return [replace(item, task="") for item in items]


def prepared(
    job: StageJob, objective: Objective, options: Config, dataset: StageDataset, rollouts: Rollouts
) -> StageDataset:
    """Make the dataset after the objective's touch that needs models or servers; kept for a resumed run."""

    def touch(items: Sequence[Item], name: str) -> list[Item]:
        file = job.work / f"prepared-{name}.safetensors"
        if not file.is_file():
            assert objective.prepare is not None
            rollouts.begin(None)
            save_items(file, TokenisedFile(objective.prepare(rollouts, items, options), {}))
        return load_items(file).items

    made = touch(dataset.own, "own")
    if not made:
        raise NotFound("the teacher answered no prompt with anything; look at the teacher")
    older, share = dataset.pools[0]
    pools = ((touch(older, "older") if older else [], share), dataset.pools[1])
    held_out = touch(dataset.validation, "validation") if dataset.validation else []
    return StageDataset(made, pools, held_out, dataset.left_out, dataset.not_replayed)
