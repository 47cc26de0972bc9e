"""When a version in shadow opens its canary: after its time, and never by itself during a pause."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from deploy.canary.policy import CanaryPolicy
from deploy.controller.shadow_watch import FEWEST_COPIES, watch_shadow
from deploy.experiments.shadow import ShadowAnswer, record_shadow
from deploy.ledger.evidence import Override, Proof, VerdictSummary
from deploy.ledger.ledger import Entry, current
from deploy.release.lifecycle import promote, start
from deploy.release.manual_controls import pause, resume
from deploy.release.opening import Releases
from deploy.release.rollback import roll_back
from infra.alerts.outbox import list_alerts
from infra.database.connect import connect, now
from infra.database.schema import create_tables
from tests.deploy.stages import published

PLAIN = CanaryPolicy(steps=(0.5,), holdback=0.0)
SHADOW = CanaryPolicy(steps=(0.5,), holdback=0.0, shadow_share=1.0, shadow_seconds=0.0)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path / 'db.sqlite'}")
    create_tables(engine)
    start(engine, "t", "base-1")
    return engine


def opened(
    engine: Engine,
    folder: Path,
    content: str,
    policy: CanaryPolicy,
    override: Override | None = None,
    champion: str | None = None,
) -> Entry:
    gate = VerdictSummary(decision="promote", champion=champion)
    return Releases(
        engine, "t", versions_dir=folder / "versions", policy=policy, prove=lambda name: Proof(version=name)
    ).open(
        published(folder, content), actor="night", gate=gate if champion or not override else None, override=override
    )


def test_a_version_in_shadow_waits_for_the_end_of_the_pause_after_a_rollback(engine: Engine, tmp_path: Path) -> None:
    opened(engine, tmp_path, "one", PLAIN)
    promote(engine, current(engine, "t"), policy=PLAIN, reason="not worse")
    shadow = opened(engine, tmp_path, "two", SHADOW, Override(actor="ada", reason="before anybody knew"))
    assert shadow.action == "gated"
    roll_back(engine, "t", actor="ada", reason="complaints", pause_seconds=3600)
    assert current(engine, "t").shadow == shadow.version
    assert watch_shadow(engine, "t", policy=SHADOW) is None
    assert current(engine, "t").canary is None
    line = watch_shadow(engine, "t", policy=SHADOW, at=now() + timedelta(hours=2))
    assert line is not None and (line.action, line.version) == ("canary", shadow.version)


def test_a_version_that_fails_in_shadow_is_withdrawn_with_its_numbers(engine: Engine, tmp_path: Path) -> None:
    version = opened(engine, tmp_path, "one", SHADOW.model_copy(update={"shadow_seconds": 3600.0})).version
    for number in range(FEWEST_COPIES):
        assert watch_shadow(engine, "t", policy=SHADOW) is None  # its time is not over, and too little is known
        error = "out of memory" if number % 10 == 0 else None
        said = ShadowAnswer(
            tenant="t", interaction_id=f"i{number}", version=version, answer="hi", latency_ms=9.0, error=error
        )
        assert record_shadow(engine, said)
    line = watch_shadow(engine, "t", policy=SHADOW)
    assert line is not None and (line.action, line.version) == ("withdrawn", version)
    assert line.evidence.model_dump()["shadow"]["failed"] == FEWEST_COPIES // 10
    assert "failed to answer" in line.reason and current(engine, "t").shadow is None
    assert list_alerts(engine)[0].kind == "withdrawn"


def test_a_person_ends_the_wait_by_resuming_or_by_an_override_given_in_the_pause(
    engine: Engine, tmp_path: Path
) -> None:
    opened(engine, tmp_path, "one", SHADOW)
    pause(engine, "t", actor="ada", reason="holidays")
    assert watch_shadow(engine, "t", policy=SHADOW) is None
    resume(engine, "t", actor="ada", reason="back")
    line = watch_shadow(engine, "t", policy=SHADOW)
    assert line is not None and line.action == "canary"
    roll_back(engine, "t", actor="ada", reason="complaints")
    opened(engine, tmp_path, "two", SHADOW, Override(actor="ada", reason="the customer waits"))
    line = watch_shadow(engine, "t", policy=SHADOW)
    assert line is not None and line.action == "canary"


def test_a_version_is_withdrawn_where_its_gate_knew_another_champion(engine: Engine, tmp_path: Path) -> None:
    opened(engine, tmp_path, "one", PLAIN)
    promote(engine, current(engine, "t"), policy=PLAIN, reason="not worse")
    champion = str(current(engine, "t").champion)
    shadow = opened(engine, tmp_path, "two", SHADOW, champion=champion)
    roll_back(engine, "t", actor="ada", reason="complaints")
    line = watch_shadow(engine, "t", policy=SHADOW)
    assert line is not None and (line.action, line.version) == ("withdrawn", shadow.version)
    assert f"compared with {champion}, but base-1 is champion" in line.reason and "--force" in line.reason
    stands = current(engine, "t")
    assert stands.shadow is None and shadow.version not in stands.barred
    assert list_alerts(engine)[0].kind == "withdrawn"


@pytest.mark.parametrize("changes", [False, True])
def test_a_version_opens_against_the_champion_its_gate_knew_or_against_any_where_a_person_says_so(
    engine: Engine, tmp_path: Path, changes: bool
) -> None:
    opened(engine, tmp_path, "one", PLAIN)
    promote(engine, current(engine, "t"), policy=PLAIN, reason="not worse")
    said = Override(actor="ada", reason="whatever it is compared with") if changes else None
    shadow = opened(engine, tmp_path, "two", SHADOW, said, champion=str(current(engine, "t").champion))
    if changes:
        roll_back(engine, "t", actor="ada", reason="complaints")
        resume(engine, "t", actor="ada", reason="go on")
    line = watch_shadow(engine, "t", policy=SHADOW)
    assert line is not None and (line.action, line.version) == ("canary", shadow.version)
