"""Versions of the real 135M model for tests of the gate: seeds, shuffled labels, lost base abilities. Kept in a folder,
so that a second run finds them."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path

from evaluation.job.config import Candidate, EvaluationConfig, EvaluationJob
from flows.demo.world import Ticket, tickets
from training.base_model import DEFAULT_BASE, Base, resolve_base
from training.recipes.recipe import StageSpec
from training.stages.job import Placement, StageInputs, make_job
from training.stages.launch import launch_stage

SEEDS = 5
TRAIN, GATE = 40, 48
THREADS = int(os.environ.get("RATCHET_TEST_THREADS", "2"))


@dataclass(frozen=True)
class Workshop:
    """Where stages of one base are made and measured."""

    folder: Path
    base: Base

    def train(
        self,
        name: str,
        labelled: list[tuple[Ticket, str]],
        *,
        seed: int = 0,
        epochs: float = 2,
        rate: float | None = None,
        tuner: str = "lora",
    ) -> Candidate:
        """A version that learned to answer each ticket with the text given."""
        train, validation = self.folder / f"{name}-train.jsonl", self.folder / "validation.jsonl"
        train.write_text(_rows(labelled))
        validation.write_text(_rows([(t, t.triage.text()) for t in tickets(seed=5, stream="v", count=4, late=False)]))
        spec = StageSpec(objective="sft", tuner=tuner, epochs=epochs, learning_rate=rate, batch_size=4, evaluations=0)
        inputs = StageInputs(base=self.base, train=train, validation=validation)
        placement = Placement(stages_dir=self.folder / "stages", cache=self.folder / "cache", threads=THREADS)
        job = make_job(spec, inputs, placement, label=f"{name}/1-sft", seed=seed)
        record = launch_stage(job)
        kind = record.result["kind"]
        return Candidate(
            version=f"v{record.digest[:16]}",
            label=name,
            kind=kind,
            path=job.final / kind,
            digest=record.digest,
            recipe="sft",
            seed=seed,
            objective="sft",
            probe=job.final / "probe.json",
        )

    def evaluation(self, candidates: list[Candidate]) -> EvaluationJob:
        """All of them, and the base as champion, on the same items."""
        _write_items(self.folder / "items.jsonl")
        base = Candidate(version=self.base.version, label="base", kind="base", digest=self.base.digest)
        return EvaluationJob(
            base_path=self.base.path,
            base_digest=self.base.digest,
            versions=(base, *candidates),
            champion=base.version,
            items_file=self.folder / "items.jsonl",
            config=EvaluationConfig(
                metrics=("json_fields", "exact_match", "loss"), judges=(), max_new_tokens=48, noise_items=0
            ),
            threads=THREADS,
            output_dir=self.folder / "evaluation",
        )


def open_workshop(folder: Path) -> Workshop:
    """A workshop on the real base model."""
    folder.mkdir(parents=True, exist_ok=True)
    return Workshop(folder, resolve_base(DEFAULT_BASE, Path("~/.cache/ratchet")))


def make_versions(workshop: Workshop) -> dict[str, Candidate]:
    """Five seeds of one recipe, one that learned shuffled labels, and one that learned nothing but the task."""
    known = [(ticket, ticket.triage.text()) for ticket in tickets(seed=5, stream="t", count=TRAIN, late=False)]
    answers = [text for _, text in known]
    random.Random(1).shuffle(answers)
    shuffled = [(ticket, text) for (ticket, _), text in zip(known, answers, strict=True)]
    made = {f"seed {seed}": workshop.train(f"seed {seed}", known, seed=seed) for seed in range(SEEDS)}
    made["shuffled"] = workshop.train("shuffled", shuffled)
    # Every weight at fifty times the usual rate. (LoRA at six times its rate lost 7 points only: within the budget.)
    made["forgetful"] = workshop.train("forgetful", known, epochs=3, rate=1e-3, tuner="full")
    return made


def _rows(labelled: list[tuple[Ticket, str]]) -> str:
    rows = [
        {
            "example_id": f"x-{ticket.ticket_id}",
            "tenant": "default",
            "subject": ticket.ticket_id,
            "shape": "completion",
            "messages": ticket.messages(),
            "completion": text,
            "group": ticket.customer,
            "reason": "edit",
            "created_at": "2026-01-01T00:00:00Z",
        }
        for ticket, text in labelled
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def _write_items(path: Path) -> None:
    asked = tickets(seed=5, stream="g", count=GATE, late=False)
    rows = [
        {"item_id": t.ticket_id, "group": t.customer, "messages": t.messages(), "reference": t.triage.text()}
        for t in asked
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
