"""Review a rollback by ratings with a blind judge: the bar stands unless the judge prefers the version's answers.

Thumbs cannot tell "worse answers" from "unhappy users of one arm rate more often". So requests are drawn by lot from
both arms, the version that did not answer them answers them too, and a judge that is told no names compares each pair
in both orders. Traffic has gone back before that: waiting for a judge would be paid by users.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from math import comb
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Column, Engine, Integer, String, Table, insert, select
from sqlalchemy.exc import IntegrityError

from deploy.canary.policy import CanaryPolicy
from deploy.experiments.shadow import Prefer, question
from deploy.ledger.evidence import Evidence
from deploy.ledger.ledger import Entry, ReleaseState, history
from deploy.ledger.state import Watch
from deploy.ledger.transitions import release_state
from deploy.ledger.writes import entry_alert, retry, write
from evaluation.judges.config import JudgeConfig
from feedback.events import Interaction
from feedback.store.store import interactions
from infra.database.connect import UtcDateTime, begin_write, metadata, now
from infra.errors import RatchetError
from infra.stored_model import Stored

log = logging.getLogger(__name__)
FEWEST = 10
"""Pairs with a preference below which the judge's word lifts no bar."""
PATIENCE = timedelta(days=1)
"""How long after a rollback a judge that is down is asked again; then the bar stands."""

Answer = Callable[[str, Sequence[Mapping[str, str]], Mapping[str, Any]], str]
"""(version, messages, sampling settings) -> its answer."""

bar_judgements = Table(
    "bar_judgements",
    metadata,
    Column("tenant", String(200), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("verdict", JSON, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)


class BlindVerdict(Stored):
    """What the judge said of a version that thumbs sent back."""

    version: str
    """The version."""
    control: str
    """The version it was compared with."""
    pairs: int
    """Pairs judged."""
    wins: int
    """Pairs in which the version's answer was preferred."""
    losses: int
    """Pairs in which the other's was."""

    @property
    def p_worse(self) -> float:
        """One-sided sign test of "the version is preferred as often": small when its answers are worse."""
        return _binomial_tail(self.wins, self.wins + self.losses)

    @property
    def borne_out(self) -> bool:
        """Whether the bar stands: the judge prefers the other version, or too few pairs tell."""
        return self.wins + self.losses < FEWEST or self.wins < self.losses


def judge_of(configs: Sequence[JudgeConfig], cache_dir: Path) -> Prefer | None:
    """Build the first judge that needs no reference, as a function over pairs of answers; None without one."""
    from evaluation.judges import build_judge
    from evaluation.judges.judge import Pair

    judge = next((each for config in configs if not (each := build_judge(config, cache_dir)).needs_reference), None)
    if judge is None:
        return None

    def prefer(pairs: Sequence[tuple[str, str, str]]) -> list[float]:
        return judge.compare([Pair(question=q, reference="", ours=ours, theirs=theirs) for q, ours, theirs in pairs])

    return prefer


def review_rollbacks(
    database: Engine, tenant: str, *, policy: CanaryPolicy, answer: Answer, prefer: Prefer
) -> list[Entry]:
    """Judge each rollback by ratings that was not judged yet; returns the entries that lifted a bar.

    Raises:
        RatchetError: engine or judge did not answer; call again later.
    """
    entries, lifted = history(database, tenant), []
    for index, entry in enumerate(entries):
        by_ratings = entry.action == "rolled_back" and entry.evidence.signal == "ratings"
        if not by_ratings or now() - entry.at > PATIENCE or _judged(database, tenant, entry.seq):
            continue
        state = release_state(entries[:index], tenant=tenant)
        if state.watch is None:
            continue
        verdict = compare_arms(database, tenant, state.watch, policy.judge_pairs, answer, prefer)
        if not verdict.borne_out:
            unbarred = _lift_bar(database, tenant, entry, verdict)
            if unbarred is not None:
                lifted.append(unbarred)
        _remember(database, tenant, entry.seq, verdict)
    return lifted


def compare_arms(
    database: Engine, tenant: str, watch: Watch, pairs: int, answer: Answer, prefer: Prefer
) -> BlindVerdict:
    """Draw requests from both arms of a watch, have the other version answer them, and let the judge compare."""
    drawn = _drawn(database, tenant, watch, pairs)
    asked: list[tuple[str, str, str]] = []
    for interaction in drawn:
        other = watch.previous if interaction.version == watch.version else watch.version
        messages = [{"role": message.role, "content": message.content} for message in interaction.messages]
        said = answer(other, messages, interaction.sampling)
        pair = (interaction.answer, said)
        ours, theirs = pair if interaction.version == watch.version else reversed(pair)
        asked.append((question(interaction), ours, theirs))
    scores = prefer(asked) if asked else []
    return BlindVerdict(
        version=watch.version,
        control=watch.previous,
        pairs=len(scores),
        wins=sum(score > 0.5 for score in scores),
        losses=sum(score < 0.5 for score in scores),
    )


def _drawn(database: Engine, tenant: str, watch: Watch, pairs: int) -> list[Interaction]:
    """By lot (a hash of the id), as many from each arm."""
    seqs = [watch.opened_seq, *([watch.champion_seq] if watch.champion_seq is not None else [])]
    query = select(interactions.c.version, interactions.c.interaction_id, interactions.c.body).where(
        interactions.c.tenant == tenant, interactions.c.release_seq.in_(seqs)
    )
    arms: dict[str, list[tuple[str, str]]] = {watch.version: [], watch.previous: []}
    with database.connect() as connection:
        for version, interaction_id, body in connection.execute(query):
            if version in arms:
                arms[version].append((hashlib.sha256(f"lot {interaction_id}".encode()).hexdigest(), body))
    chosen = [body for rows in arms.values() for _, body in sorted(rows)[: pairs // 2]]
    return [Interaction.model_validate_json(body) for body in chosen]


def _lift_bar(database: Engine, tenant: str, rollback: Entry, verdict: BlindVerdict) -> Entry | None:
    version = rollback.version

    def attempt(state: ReleaseState) -> Entry:
        entry = Entry(
            tenant=tenant,
            action="unbarred",
            version=version,
            actor="controller",
            reason=f"a blind judge prefers its answers in {verdict.wins} of {verdict.wins + verdict.losses} pairs: "
            "the complaints may be of who rated, not of what was answered",
            evidence=Evidence.model_validate({"judge": verdict.model_dump(mode="json"), "rollback": rollback.seq}),
        )
        title = f"{version} was taken back, but its bar is lifted: a blind judge does not bear the thumbs out"
        alert = entry_alert(entry, "bar_lifted", "warning", title, text=entry.reason)
        return write(database, [entry], state.seq, alert)

    try:
        return retry(database, tenant, attempt)
    except RatchetError as error:  # a person lifted it, or it is live again
        log.info("the bar of %s was not lifted: %s", version, error)
        return None


def _judged(database: Engine, tenant: str, seq: int) -> bool:
    query = select(bar_judgements.c.seq).where(bar_judgements.c.tenant == tenant, bar_judgements.c.seq == seq)
    with database.connect() as connection:
        return connection.execute(query).first() is not None


def _remember(database: Engine, tenant: str, seq: int, verdict: BlindVerdict) -> None:
    try:
        with begin_write(database) as connection:
            connection.execute(
                insert(bar_judgements).values(tenant=tenant, seq=seq, verdict=verdict.model_dump(mode="json"), at=now())
            )
    except IntegrityError:  # another controller said so first
        return


def _binomial_tail(successes: int, trials: int) -> float:
    """P(X <= successes) for X ~ Binomial(trials, 1/2)."""
    return float(sum(comb(trials, k) for k in range(successes + 1)) / 2**trials)
