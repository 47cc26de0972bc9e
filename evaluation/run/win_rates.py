"""Win-rates: every challenger against the champion, and against its recipe's own sft stage, on given answers.

What a comparison cost stands in its row, so a run that was killed goes on with the judge's budget as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from evaluation.job.config import EvaluationJob, JudgeConfig
from evaluation.job.items import conversation_text
from evaluation.job.journal import Row, Rows
from evaluation.judges import build_judge
from evaluation.judges.judge import Judge, JudgeDown, JudgeOverBudget, Pair, Tally
from evaluation.scorecard import JudgeReport

if TYPE_CHECKING:
    from feedback.snapshots.gate_items import GateItem

Opponent = Literal["champion", "sft"]
OPPONENTS: tuple[Opponent, ...] = ("champion", "sft")
"""Whom a challenger's answers are held against: the live version's, and those of its recipe's own sft stage."""
AGAIN = "again"
"""Kind of the comparisons of the champion's second answers with its first."""
_PIECE = 16
"""Comparisons between two writes to the log; a judge behind a server costs money, so each of its is written at once."""


def judge_answers(
    job: EvaluationJob,
    items: Sequence[GateItem],
    rows: Rows,
    scored: Sequence[str],
    cache: Path,
    on_done: Callable[[int], None],
) -> list[JudgeReport]:
    """Ask every configured judge; one that cannot answer is reported, and its values are left out.

    Args:
        scored: versions that answered all items.
        cache: folder for answers of judges that cost something.
    """
    reports = []
    for index, config in enumerate(job.config.judges):
        judge = build_judge(config, cache / f"judge-{index}", job)
        state: Literal["ok", "down", "over_budget"] = "ok"
        detail = ""
        agreement: tuple[float | None, int] = (None, 0)
        _restore(judge.tally, [*rows.starting("judged", str(index)), *rows.starting("agreement", str(index))])
        size = 1 if config.base_url else _PIECE
        try:
            for against, version, opponent in matches(job, scored):
                _play(judge, index, items, rows, against, version, opponent, size, on_done)
            if job.champion in scored:  # its second answers against its first: how far the instrument moves by itself
                twice = [item for item in items if rows.get("again", job.champion, item.item_id) is not None]
                _play(judge, index, twice, rows, AGAIN, job.champion, job.champion, size, on_done)
            if judge.name != "reference":  # it would only be asked whether the reference is the reference
                agreement = _agreement(judge, index, items, rows)
        except JudgeDown as error:
            state, detail = "down", str(error)
        except JudgeOverBudget as error:
            state, detail = "over_budget", str(error)
        judged = [row for row in rows.starting("judged", str(index)) if row["key"][2] != AGAIN]
        reports.append(
            JudgeReport(
                name=judge.name,
                state=state,
                comparisons=len(judged),
                calls=judge.tally.calls,
                tokens=judge.tally.tokens,
                ties=sum(row["value"] == 0.5 for row in judged),
                flipped=judge.tally.flipped,
                first_preferred=judge.tally.first_preferred,
                cost=_cost(judge, config),
                length_controlled=judge.length_controlled,
                model_digest=judge.model_digest,
                human_agreement=agreement[0],
                human_pairs=agreement[1],
                detail=detail,
            )
        )
    return reports


def _cost(judge: Judge, config: JudgeConfig) -> float | None:
    if config.price_per_million_tokens is None:
        return None
    return round(judge.tally.tokens * config.price_per_million_tokens / 1e6, 6)


def matches(job: EvaluationJob, scored: Sequence[str]) -> list[tuple[str, str, str]]:
    """(kind, version, opponent) of every comparison to make."""
    found = []
    for candidate in sorted(job.versions, key=lambda candidate: candidate.version):
        if candidate.version not in scored or candidate.version == job.champion:
            continue
        if job.champion in scored:
            found.append(("champion", candidate.version, job.champion))
        if candidate.sft_parent in scored and candidate.sft_parent != candidate.version:
            found.append(("sft", candidate.version, str(candidate.sft_parent)))
    return found


def win_rate_name(judge_index: int, judge: str, against: Opponent) -> str:
    """The first judge's win-rate against the champion is `win_rate`; others carry opponent, name and place in the
    config: two judges may be of one kind, such as two models behind two servers."""
    return "win_rate" + ("_sft" if against == "sft" else "") + (f"_{judge}_{judge_index}" if judge_index else "")


def _play(
    judge: Judge,
    index: int,
    items: Sequence[GateItem],
    rows: Rows,
    against: str,
    version: str,
    opponent: str,
    size: int,
    on_done: Callable[[int], None],
) -> None:
    for start in range(0, len(items), size):
        piece = items[start : start + size]
        open_ = [item for item in piece if rows.get("judged", str(index), against, version, item.item_id) is None]
        pairs = [
            Pair(
                question=conversation_text(item.messages),
                reference=item.reference,
                grader=item.grader,
                ours=_answer(rows, version, item.item_id, "again" if against == AGAIN else "answer"),
                theirs=_answer(rows, opponent, item.item_id),
                messages=_messages(item),
            )
            for item in open_
        ]
        before = replace(judge.tally)
        values = judge.compare(pairs)
        found: list[Row] = [{"value": value} for value in values]
        if found:
            found[0]["tally"] = _spent(before, judge.tally)
        rows.append(
            [
                (("judged", str(index), against, version, item.item_id), row)
                for item, row in zip(open_, found, strict=True)
            ]
        )
        on_done(len(piece))


def _answer(rows: Rows, version: str, item_id: str, which: str = "answer") -> str:
    row = rows.get(which, version, item_id)
    assert row is not None, f"{version} is said to have given every {which}, but {item_id} is missing"
    return str(row["answer"])


def _messages(item: GateItem) -> tuple[dict[str, str], ...]:
    return tuple({"role": message.role, "content": message.content} for message in item.messages)


def _spent(before: Tally, after: Tally) -> dict[str, int]:
    """What a piece of work added to a judge's tally."""
    then, now = asdict(before), asdict(after)
    return {name: now[name] - then[name] for name in now if now[name] != then[name]}


def _restore(tally: Tally, rows: Sequence[Row]) -> None:
    """Add what earlier runs of this evaluation spent: the budget of calls is the evaluation's, not the process's."""
    for row in rows:
        for name, count in row.get("tally", {}).items():
            setattr(tally, name, getattr(tally, name) + count)


def _agreement(judge: Judge, index: int, items: Sequence[GateItem], rows: Rows) -> tuple[float | None, int]:
    """Share of people's preferences that the judge shares (ties count half), and how many there were."""
    row = rows.get("agreement", str(index))
    if row is not None:
        return row["value"], row["pairs"]
    pairs = [
        Pair(
            question=conversation_text(i.messages),
            reference="",
            ours=i.chosen,
            theirs=i.rejected,
            messages=_messages(i),
        )
        for i in items
        if i.chosen and i.rejected
    ]
    before = replace(judge.tally)
    values = judge.compare(pairs)
    share = sum(values) / len(values) if values else None
    said = {"value": share, "pairs": len(values), "tally": _spent(before, judge.tally)}
    rows.append([(("agreement", str(index)), said)])
    return share, len(values)
