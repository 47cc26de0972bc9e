"""After thumbs sent a version back, a blind judge has a word on the bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.canary.policy import CanaryPolicy
from deploy.controller.canary_watch import watch_canary
from deploy.controller.rollback_review import BlindVerdict, judge_of, review_rollbacks
from deploy.ledger.evidence import Proof, VerdictSummary
from deploy.ledger.ledger import current, history
from deploy.release.lifecycle import start
from deploy.release.opening import Releases
from evaluation.judges.config import JudgeConfig
from evaluation.judges.openai_compatible import OpenAiConfig
from infra.alerts.outbox import list_alerts
from infra.database.connect import connect, now
from infra.database.schema import create_tables
from infra.errors import RatchetError
from tests.deploy.stages import published
from tests.deploy.traffic import serve

POLICY = CanaryPolicy(steps=(0.5,), minimum_seconds=0, window_seconds=10, judge_pairs=40)


def answer(version: str, messages: Sequence[Mapping[str, str]], sampling: Mapping[str, Any]) -> str:
    return f"answer of {version}"


@pytest.fixture
def sent_back(tmp_path: Path) -> Any:
    db = connect(f"sqlite:///{tmp_path / 'db'}")
    create_tables(db)
    start(db, "t", "base-1")
    version = published(tmp_path, "one")
    Releases(db, "t", versions_dir=tmp_path / "versions", policy=POLICY, prove=lambda name: Proof(version=name)).open(
        version, actor="night", gate=VerdictSummary(decision="promote")
    )
    serve(db, 300, {"base-1": 0.9, version: 0.3})
    judged = watch_canary(db, "t", policy=POLICY, holder="test", at=now() + timedelta(seconds=30))
    assert judged is not None and judged.decision == "back"
    return db, version


def test_a_judge_that_prefers_its_answers_lifts_the_bar(sent_back: Any) -> None:
    db, version = sent_back
    seen: list[tuple[str, str, str]] = []

    def prefer(pairs: Sequence[tuple[str, str, str]]) -> list[float]:
        seen.extend(pairs)
        return [1.0] * len(pairs)

    [line] = review_rollbacks(db, "t", policy=POLICY, answer=answer, prefer=prefer)
    assert (line.action, line.version, line.actor) == ("unbarred", version, "controller")
    assert current(db, "t").barred == {} and current(db, "t").champion == "base-1" and current(db, "t").paused
    assert len(seen) == 40
    # From both arms: half of the pairs hold the stored answer as ours, half as theirs; "hi" is what serve() answered.
    assert {(ours, theirs) for _, ours, theirs in seen} == {("hi", "answer of base-1"), (f"answer of {version}", "hi")}
    assert [alert.kind for alert in list_alerts(db)][:1] == ["bar_lifted"]
    assert review_rollbacks(db, "t", policy=POLICY, answer=answer, prefer=prefer) == [], "once"
    assert len(seen) == 40


@pytest.mark.parametrize("score", [0.0, 0.5])
def test_a_judge_that_agrees_or_cannot_tell_leaves_the_bar(sent_back: Any, score: float) -> None:
    db, version = sent_back
    assert review_rollbacks(db, "t", policy=POLICY, answer=answer, prefer=lambda pairs: [score] * len(pairs)) == []
    assert version in current(db, "t").barred and history(db, "t")[-1].action == "rolled_back"


def test_a_judge_that_is_down_is_asked_again(sent_back: Any) -> None:
    db, _version = sent_back

    def down(pairs: Sequence[tuple[str, str, str]]) -> list[float]:
        raise RatchetError("away")

    with pytest.raises(RatchetError):
        review_rollbacks(db, "t", policy=POLICY, answer=answer, prefer=down)
    assert len(review_rollbacks(db, "t", policy=POLICY, answer=answer, prefer=lambda pairs: [1.0] * len(pairs))) == 1


def test_only_a_judge_without_need_of_references_is_asked(tmp_path: Path) -> None:
    assert judge_of([JudgeConfig()], tmp_path) is None
    assert judge_of([JudgeConfig(), OpenAiConfig(base_url="http://x/v1", model="m")], tmp_path) is not None


def test_the_sign_test() -> None:
    verdict = BlindVerdict(version="v", control="c", pairs=20, wins=3, losses=12)
    assert verdict.borne_out and verdict.p_worse == pytest.approx(0.0176, abs=1e-4)
    assert not BlindVerdict(version="v", control="c", pairs=20, wins=8, losses=7).borne_out
