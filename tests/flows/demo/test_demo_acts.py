"""The three acts on the tiny random model, over real servers: that they are played, not that the model is any good.

The gate rightly refuses what the tiny model learns, so the play is told to release by override (and says so).
"""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from flows import demo
from flows.demo import home as homes
from flows.demo.facts import ActFacts, read_facts
from infra.errors import UserError
from infra.processes import stack
from tests.flows.demo.demo_sizes import tiny_sizes


def claims(facts: ActFacts) -> dict[str, bool]:
    return {claim.text: claim.holds for claim in facts.claims}


@pytest.mark.timeout(1500)  # a whole play with its servers, on a machine that other tests share
def test_all_three_acts_are_played(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RATCHET_USER_SALT", "RATCHET_ENGINE_KEY", "RATCHET_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "demo"
    told = io.StringIO()
    console = Console(file=told, width=150)
    try:
        shown = demo.run(
            home=home, base_model=str(tiny_base), cache=tmp_path / "cache", sizes=tiny_sizes(), console=console
        )
        one, two, three = read_facts(home / "facts")
        assert shown == all(facts.shown for facts in (one, two, three))

        assert claims(one)["at least three challengers of three objectives were trained"]
        assert {score.measured_on for score in one.scores} == {
            "the first day's tickets",
            "the gate's items",
            "held-out tickets",
        }
        assert any("override" in note for note in one.notes) or claims(one)["the gate promoted one of them"]
        actions = [line.action for line in one.ledger]
        assert actions[0] == "baseline" and "canary" in actions

        assert claims(two)["with the defence off, the gate does not promote what learnt the poison"]
        assert claims(two)["the live model stays"]
        assert claims(two)["an alert arrived at the webhook, rightly signed"]

        assert claims(three)["no request was lost"]
        assert any(line.action == "canary" and "Robin" in line.actor for line in three.ledger)
        assert all(alert.signed for facts in (one, two, three) for alert in facts.alerts)

        page = (home / "report.html").read_text()
        assert page.count("<svg") >= 5 and "What was to be shown" in page
        said = told.getvalue()
        assert re.search(r"gateway\s+http://127\.0\.0\.1:\d+", said) and "report.html" in said
        assert "ratchet down --config" in said
        assert stack.status(home / "run").healthy, "the servers go on running, to look around"
    finally:
        homes.stop(home)


def test_there_is_no_act_four_and_strangers_folders_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no act 4"):
        demo.run(act=4, home=tmp_path / "demo")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not made by a demo"):
        demo.run(home=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"
