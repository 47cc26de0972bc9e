"""Judge win-rates: every challenger against the champion, and against its recipe's own sft stage, on given answers.

What a comparison cost stands in its journal entry, so a run that was killed resumes with the judge's budget as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from evaluation.answers.entries import ANSWERS, SECOND_ANSWERS, AnswerKind
from evaluation.answers.generate import messages_of
from evaluation.job.config import EvaluationJob
from evaluation.job.items import conversation_text
from evaluation.job.journal import EntryKind, Journal
from evaluation.judges import build_judge
from evaluation.judges.judge import Judge, JudgeDown, JudgeOverBudget, Pair
from evaluation.scorecard import JudgeReport
from infra.stored_model import Stored

if TYPE_CHECKING:
    from feedback.snapshots.gate_items import GateItem

Opponent = Literal["champion", "sft"]
OPPONENTS: tuple[Opponent, ...] = ("champion", "sft")
"""Whom a challenger's answers are compared with: the live version's, and those of its recipe's own sft stage."""
SECOND = "again"
"""Kind of the comparisons of the champion's second answers with its first."""
_PIECE = 16
"""Comparisons between two writes to the journal; a judge that costs money has each of its written at once."""


class Judgement(Stored):
    """One comparison of two answers."""

    value: float
    """1 where the version's answer is better, 0 where the opponent's is, 0.5 for a tie."""
    tally: Mapping[str, int] = Field(default={}, exclude_if=lambda tally: not tally)
    """What a piece of comparisons added to the judge's tally; it stands at the first of them."""


class Agreement(Stored):
    """How far a judge shares people's preferences."""

    value: float | None
    """Share of them that it shares, ties counting half; None where there are none."""
    pairs: int
    """Preferences it was asked about."""
    tally: Mapping[str, int]
    """What that added to the judge's tally."""


JUDGEMENTS = EntryKind("judged", Judgement, ("judge", "against", "version", "item_id"))
AGREEMENT = EntryKind("agreement", Agreement, ("judge",))


@dataclass(frozen=True)
class Comparison:
    """A version whose answers are compared with an opponent's."""

    against: str
    """Kind of opponent, or `SECOND`."""
    version: str
    opponent: str


def win_rate_name(judge_index: int, judge: str, against: Opponent) -> str:
    """Name a win-rate: the first judge's against the champion is `win_rate`; others carry opponent, name and place.

    The place in the config, since two judges may be of one kind, such as two models behind two servers.
    """
    return "win_rate" + ("_sft" if against == "sft" else "") + (f"_{judge}_{judge_index}" if judge_index else "")


def comparisons(job: EvaluationJob, scored: Sequence[str]) -> list[Comparison]:
    """List the comparisons of versions that each judge makes."""
    result = []
    for candidate in sorted(job.versions, key=lambda candidate: candidate.version):
        version, parent = candidate.version, candidate.sft_parent
        if version not in scored or version == job.champion:
            continue
        if job.champion in scored:
            result.append(Comparison("champion", version, job.champion))
        if parent is not None and parent in scored and parent != version:
            result.append(Comparison("sft", version, parent))
    return result


def judge_answers(
    job: EvaluationJob,
    items: Sequence[GateItem],
    journal: Journal,
    scored: Sequence[str],
    cache: Path,
    on_done: Callable[[int], None],
) -> list[JudgeReport]:
    """Ask every configured judge; one that cannot answer is reported, and its values are left out.

    Args:
        scored: versions that answered all items.
        cache: folder for answers of judges that cost something.
        on_done: gets how many comparisons were finished since the last call.
    """
    reports = []
    for index, config in enumerate(job.config.judges):
        judge = build_judge(config, cache / f"judge-{index}", job.night_reward_model)
        reports.append(_Judging(judge, str(index), items, journal, on_done).report(job, scored))
    return reports


@dataclass(frozen=True)
class _Judging:
    """One judge at work on the answers of one evaluation."""

    judge: Judge
    index: str
    """Its place in the config, by which the journal knows it."""
    items: Sequence[GateItem]
    journal: Journal
    on_done: Callable[[int], None]

    def report(self, job: EvaluationJob, scored: Sequence[str]) -> JudgeReport:
        """Make all comparisons that are not in the journal, and say how that went."""
        judge, detail = self.judge, ""
        state: Literal["ok", "down", "over_budget"] = "ok"
        agreement: Agreement | None = None
        self._restore_tally()
        try:
            for comparison in comparisons(job, scored):
                self._compare(comparison, self.items)
            if job.champion in scored:  # its second answers against its first: how far the instrument moves by itself
                second = self.journal.by_item(SECOND_ANSWERS, job.champion)
                repeated = [item for item in self.items if item.item_id in second]
                self._compare(Comparison(SECOND, job.champion, job.champion), repeated)
            if not judge.needs_reference:  # else it would only be asked whether the reference is the reference
                agreement = self._agreement()
        except JudgeDown as error:
            state, detail = "down", str(error)
        except JudgeOverBudget as error:
            state, detail = "over_budget", str(error)
        judged = [entry for key, entry in self.journal.entries(JUDGEMENTS, self.index).items() if key[0] != SECOND]
        return JudgeReport(
            name=judge.name,
            state=state,
            comparisons=len(judged),
            calls=judge.tally.calls,
            tokens=judge.tally.tokens,
            ties=sum(entry.value == 0.5 for entry in judged),
            flipped=judge.tally.flipped,
            first_preferred=judge.tally.first_preferred,
            cost=judge.cost,
            length_controlled=judge.length_controlled,
            model_digest=judge.model_digest,
            human_agreement=agreement.value if agreement is not None else None,
            human_pairs=agreement.pairs if agreement is not None else 0,
            detail=detail,
        )

    def _compare(self, comparison: Comparison, items: Sequence[GateItem]) -> None:
        """Compare the answers to each item, and append what is new."""
        size = 1 if self.judge.remote else _PIECE
        kind = SECOND_ANSWERS if comparison.against == SECOND else ANSWERS
        for start in range(0, len(items), size):
            piece = items[start : start + size]
            keys = [(self.index, comparison.against, comparison.version, item.item_id) for item in piece]
            open_ = [
                (key, item) for key, item in zip(keys, piece, strict=True) if self.journal.get(JUDGEMENTS, *key) is None
            ]
            pairs = [
                Pair(
                    question=conversation_text(item.messages),
                    reference=item.reference,
                    grader=item.grader,
                    ours=self._answer(kind, comparison.version, item),
                    theirs=self._answer(ANSWERS, comparison.opponent, item),
                    messages=tuple(messages_of(item)),
                )
                for _, item in open_
            ]
            earlier = replace(self.judge.tally)
            values = self.judge.compare(pairs)
            spent = self.judge.tally.since(earlier)
            entries = [Judgement(value=v, tally=spent if n == 0 else {}) for n, v in enumerate(values)]
            self.journal.append(JUDGEMENTS, [(key, e) for (key, _), e in zip(open_, entries, strict=True)])
            self.on_done(len(piece))

    def _answer(self, kind: AnswerKind, version: str, item: GateItem) -> str:
        entry = self.journal.get(kind, version, item.item_id)
        assert entry is not None, f"{version} answered all items, but its {kind.name} to {item.item_id} is missing"
        return entry.answer

    def _agreement(self) -> Agreement:
        """Share of people's preferences that the judge shares (ties count half), and how many there were."""
        known = self.journal.get(AGREEMENT, self.index)
        if known is not None:
            return known
        pairs = [
            Pair(
                question=conversation_text(item.messages),
                reference="",
                ours=item.chosen,
                theirs=item.rejected,
                messages=tuple(messages_of(item)),
            )
            for item in self.items
            if item.chosen and item.rejected
        ]
        earlier = replace(self.judge.tally)
        values = self.judge.compare(pairs)
        agreement = Agreement(
            value=sum(values) / len(values) if values else None,
            pairs=len(values),
            tally=self.judge.tally.since(earlier),
        )
        self.journal.append(AGREEMENT, [((self.index,), agreement)])
        return agreement

    def _restore_tally(self) -> None:
        """Add what earlier runs of this evaluation spent: the budget of calls is its own, not the process's."""
        for judgement in self.journal.entries(JUDGEMENTS, self.index).values():
            self.judge.tally.add(judgement.tally)
        for agreement in self.journal.entries(AGREEMENT, self.index).values():
            self.judge.tally.add(agreement.tally)
