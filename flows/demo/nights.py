"""Run the nights of the demo: `ratchet run nightly`, as a person would start it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from deploy.controller.proving import make_prover
from deploy.controller.rounds import releases_of
from deploy.ledger.evidence import Override
from deploy.ledger.ledger import Entry
from deploy.nights.record import NightRecord
from deploy.versions.versions import publish_version
from evaluation.scorecard import Scorecard, read_scorecard
from flows.config.job_files import controller_job
from flows.config.pipeline import PipelineConfig
from flows.demo.desk import TENANT
from flows.demo.home import CONFIG
from flows.demo.play import Play
from flows.demo.scribe import Bar, Scribe
from flows.night.record import nights_of
from infra.artifact import read_record, version_name
from infra.errors import RatchetError
from infra.processes.progress import FILE, last_progress
from infra.settings import Config
from infra.source_tree import python_path

SCRATCH = "undefended"
"""Folder of the night that is played with the defence switched off."""

_PRIMARY = "exact_match"


class Nightfall(Config):
    """What one night came to."""

    decision: str
    """promote, reject, inconclusive, or "none" when it did not come to a verdict."""
    summary: str
    """The decision, and the share of right answers of each version that was measured."""
    labels: dict[str, str] = {}
    """What a measured version is called -> its name."""
    objectives: dict[str, str] = {}
    """Challenger -> objective of its last stage."""
    best: str | None = None
    """The challenger that scored best, promoted or not."""


def play_night(play: Play, scribe: Scribe, *, config: PipelineConfig | None = None) -> Nightfall:
    """Run the nightly flow and tell what came of it.

    Raises:
        RatchetError: the flow failed; the message ends with the end of its log.
    """
    config = config or play.config
    with scribe.scene("the night: intake, training, evaluation, gate") as bar:
        _run(play, config, bar, "run", "nightly")
    night = nights_of(config, TENANT)[-1]
    scribe.note(f"The night ended: {brief(night.outcome)}")
    folder = config.places.evaluations_dir / night.night_id
    if not (folder / "scorecard.json").exists():
        return Nightfall(decision="none", summary=brief(night.outcome))
    scorecard = read_scorecard(folder)
    return _summed_up(scribe, night, scorecard)


def play_intake(play: Play, scribe: Scribe) -> None:
    """Run the intake alone."""
    with scribe.scene("the intake: redact, dedupe, look for abuse, validate") as bar:
        _run(play, play.config, bar, "run", "ingest")


def release_by_hand(play: Play, version: str, *, actor: str, reason: str) -> Entry:
    """Release a version that no gate passed, by an override in somebody's name; the canary's first line.

    Raises:
        RatchetError: it is no stage of any of the demo's nights, or the engine cannot serve it.
    """
    places = play.config.places
    for stages in (places.stages_dir, play.home / SCRATCH / "stages"):
        for folder in sorted(path for path in stages.glob("[!.]*") if path.is_dir()):
            record = read_record(folder)
            if record is not None and version_name(record.digest) == version:
                publish_version(folder, places.versions_dir)
    job = controller_job(play.config, play.base)
    releases = releases_of(play.engine, TENANT, job, make_prover(job))
    return releases.open(version, actor=actor, override=Override(actor=actor, reason=reason))


def brief(text: str, limit: int = 300) -> str:
    """The beginning of a long text, to its last whole word; the whole of it stands in the ledger."""
    return text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " ..."


def _summed_up(scribe: Scribe, night: NightRecord, scorecard: Scorecard) -> Nightfall:
    values = scorecard.gate.scores.get(_PRIMARY, {})
    challengers = {card.version for card in scorecard.challengers}
    shares: dict[str, float] = {}
    for card in scorecard.versions:
        right = [value >= 1.0 for value in values.get(card.version, ()) if value is not None]
        if card.error is None and right:
            shares[card.version] = scribe.score(card.label, card.version, "the gate's items", right).share
    measured = ", ".join(f"{c.label} {100 * shares[c.version]:.0f}%" for c in scorecard.versions if c.version in shares)
    known = [version for version in challengers if version in shares]
    return Nightfall(
        decision=_decision(night),
        summary=f"{_decision(night)} ({measured or 'nothing was measured'})",
        labels={card.label: card.version for card in scorecard.versions},
        objectives={card.label: card.objective for card in scorecard.versions if card.version in challengers},
        best=max(known, key=lambda version: (shares[version], version)) if known else None,
    )


def _decision(night: NightRecord) -> str:
    verdict = night.steps.get("verdict")
    return str(verdict["decision"]) if isinstance(verdict, dict) else "none"


def _run(play: Play, config: PipelineConfig, bar: Bar, *words: str) -> None:
    """A `ratchet` command in a process of its own, its output kept in the demo's logs."""
    log = play.config.places.logs_dir / f"demo-{'-'.join(words)}-{int(time.time())}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "flows.cli", *words, "--config", str(config.places.home_dir / CONFIG)]
    began = time.time()
    with log.open("wb") as out:
        running = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": python_path()}
        )
        try:
            while running.poll() is None:
                time.sleep(0.5)
                bar.show(*_how_far(config, began))
        finally:
            if running.poll() is None:
                running.terminate()
                running.wait()
    if running.returncode != 0:
        end = log.read_text(errors="replace")[-2000:]
        raise RatchetError(f"`ratchet {' '.join(words)}` ended with {running.returncode}; its log is {log}:\n{end}")


def _how_far(config: PipelineConfig, began: float) -> tuple[str, int, int | None]:
    """What the night is at: the newest line of progress that a stage or an evaluation wrote."""
    places = config.places
    files = [*places.stages_dir.glob(f"*/{FILE}"), *places.evaluations_dir.glob(f"*/{FILE}")]
    times = {file: file.stat().st_mtime for file in files}
    fresh = [file for file in files if times[file] >= began]
    if not fresh:
        return "taking in what people said", 0, None
    newest = max(fresh, key=lambda file: times[file])
    line = last_progress(newest)
    done, total = (line.done, line.total) if line is not None else (0, None)
    if newest.is_relative_to(places.evaluations_dir):
        return f"evaluation ({line.phase if line is not None else 'starting'})", done, total
    stages = sum(file.is_relative_to(places.stages_dir) for file in fresh)
    return f"training, stage {stages}", done, total
