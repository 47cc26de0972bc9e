import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from evaluation.proportions import wilson_interval
from flows.demo.facts import (
    ActFacts,
    Claim,
    Happening,
    LedgerLine,
    ReceivedAlert,
    Score,
    Thumbed,
    read_facts,
    write_facts,
)
from flows.demo.report import print_report, write_report

START = datetime(2030, 1, 1, tzinfo=UTC)


def play(act: int) -> ActFacts:
    at = START + timedelta(minutes=act)
    return ActFacts(
        act=act,
        title="a night <script>alert(1)</script>",
        started=at,
        ended=at + timedelta(minutes=1),
        scores=(
            Score(label="base", version="base-1", measured_on="held-out tickets", right=3, total=100),
            Score(label="live & kicking", version="v2", measured_on="held-out tickets", right=80, total=100),
        ),
        thumbs=tuple(
            Thumbed(at=at + timedelta(seconds=i), version="v2" if i > 20 else "base-1", up=i % 3 > 0) for i in range(50)
        ),
        happenings=(
            Happening(at=at, until=at + timedelta(seconds=30), event="customers <write>"),
            Happening(at=at + timedelta(seconds=40), event="promoted", decision=True),
        ),
        quarantine={"one account, too much": 12},
        quarantined=(("one account, too much", '{"type":"<b>question</b>"}'),),
        ledger=(LedgerLine(seq=1, at=at, action="promote", version="v2", actor="controller", reason="thumbs"),),
        alerts=(
            ReceivedAlert(at=at, kind="rollback", severity="error", title="back", body="<img src=x>", signed=True),
        ),
        claims=(Claim(text="better", holds=act != 2, numbers="3% to 80%"),),
        notes=("the gate said so",),
        names={"v2": "live"},
    )


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_the_page_is_whole_self_contained_and_escaped(tmp_path: Path) -> None:
    acts = [play(1), play(2)]
    page = write_report(tmp_path / "out" / "report.html", acts, base="tiny", urls={"gateway": "http://127.0.0.1:1"})
    text = page.read_text()
    parsed = Page()
    parsed.feed(text)
    assert "script" not in parsed.tags and "img" not in parsed.tags
    assert parsed.tags.count("svg") == 4, "thumbs, timeline, and one picture of accuracy per act"
    assert all(link.startswith(("#", "http://127.0.0.1:1")) for link in parsed.links)
    assert "80 of 100" in text and "71% to 87%" in text
    assert re.search(r'class="no">\s*no', text)
    assert "&lt;img src=x&gt;" in text


def test_the_page_can_be_written_with_no_act_played(tmp_path: Path) -> None:
    assert "<svg" in write_report(tmp_path / "report.html", [], base="tiny", urls={}).read_text()


def test_the_terminal_shows_scores_claims_and_urls(tmp_path: Path) -> None:
    out = StringIO()
    console = Console(file=out, width=160)
    print_report(console, [play(1), play(2)], page=tmp_path / "r.html", urls={"gateway": "http://127.0.0.1:1"})
    text = out.getvalue()
    assert "80% of 100" in text and "http://127.0.0.1:1" in text and "r.html" in text
    assert text.count("better") == 2
    assert re.search(r"better\W+no\W", text)


def test_facts_survive_on_disk_and_a_replay_replaces_them(tmp_path: Path) -> None:
    write_facts(tmp_path, play(2))
    write_facts(tmp_path, play(1))
    write_facts(tmp_path, play(1).model_copy(update={"title": "again"}))
    assert read_facts(tmp_path) == [play(1).model_copy(update={"title": "again"}), play(2)]
    assert [facts.shown for facts in read_facts(tmp_path)] == [True, False]


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962), (0, 0, 0.0, 1.0)],
)
def test_wilson_interval(right: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=5e-4)
