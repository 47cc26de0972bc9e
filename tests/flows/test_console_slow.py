"""The console in real Chromium over a real stack: a night, a canary with real traffic, quarantine, rollback, arena."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from deploy.ledger.ledger import current, history
from feedback.events import Feedback, Thumb
from feedback.store.store import Store
from flows.config.pipeline import PipelineConfig
from flows.stack.first_keys import first_keys
from infra.database.open import open_database
from tests.chromium import SHOTS, chromium, shot
from tests.flows.world import ONE_RECIPE, START, ratchet, start_stack, tell_feedback

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

PAGES = ("live", "nights", "canary", "quarantine", "ledger", "lineage", "playground")


@pytest.fixture(scope="module")
def desk(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PipelineConfig]:
    """A stack whose night promoted a challenger, with users who rated the canary and a row in quarantine."""
    folder = tmp_path_factory.mktemp("console")
    # Watched for as long as the tests last: neither forward before an hour, nor back on a few complaints.
    hours = {"minimum_seconds": 3600, "deadline_seconds": 7200}
    quick = {"steps": [0.5], "window_seconds": 1, "alpha_back": 1e-9, **hours}
    stack = start_stack(folder, tiny_base, canary=quick, training=ONE_RECIPE)
    try:
        config = stack.config
        tell_feedback(config)
        _say_something_wrong(config)
        found = json.loads(ratchet("run", "nightly", "--json", config=stack.file).stdout)
        assert found["decision"] == "promote"
        _users_rate(config, 24)
        yield config
    finally:
        stack.stop()


def _say_something_wrong(config: PipelineConfig) -> None:
    """Two people contradict one another about an answer, which the intake holds for a person to settle."""
    store = Store(open_database(config.places))
    for number, up in enumerate((True, False) * 2):
        store.record_feedback(
            Feedback(
                event_id=f"quarrel-{number}",
                tenant="default",
                interaction_id="i1",
                actor=f"user-quarrel-{number}",
                trusted=True,
                kind="thumb",
                value=Thumb(up=up),
                created_at=START,
                source="gateway",
            )
        )


def _keys(config: PipelineConfig) -> dict[str, str]:
    found: dict[str, str] = json.loads(first_keys(config).file.read_text())["default"]
    return found


def _users_rate(config: PipelineConfig, count: int, *, name: str = "live") -> None:
    """Users ask through the gateway and thumb what they get: the challenger satisfies fewer."""
    headers = {"Authorization": f"Bearer {_keys(config)['app']}"}
    with httpx.Client(base_url=config.places.gateway_url, headers=headers, timeout=60) as client:
        for number in range(count):
            body = {"model": "desk", "messages": [{"role": "user", "content": f"my router {number}"}], "max_tokens": 4}
            answer = client.post("/v1/chat/completions", json={**body, "user": f"{name}-{number}"}).raise_for_status()
            facts = answer.json()["ratchet"]
            up = facts["version"].startswith("base") or number % 3 == 0
            said = {"interaction_id": facts["interaction_id"], "kind": "thumb", "up": up, "user": f"{name}-{number}"}
            client.post("/v1/feedback", json=said).raise_for_status()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def _open(browser: Browser, config: PipelineConfig, purpose: str, **options: Any) -> tuple[Page, list[str]]:
    """A signed-in page, and everything that went wrong on it since."""
    page = browser.new_page(**options)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    outside = config.places.gateway_url
    page.on("request", lambda sent: wrong.append(f"asks {sent.url}") if not sent.url.startswith(outside) else None)
    page.goto(f"{config.places.gateway_url}/console")
    page.get_by_role("button", name="Sign in").first.click()
    page.get_by_label("API key").fill(_keys(config)[purpose])
    page.keyboard.press("Enter")
    page.get_by_text("Live now").wait_for()
    return page, wrong


def _go(page: Page, name: str) -> None:
    page.evaluate(f"location.hash = '{name}'")
    page.locator(f"nav a[href='#{name.split('/')[0]}'][aria-current=page]").wait_for()
    page.wait_for_timeout(700)


@pytest.mark.parametrize(
    ("look", "options"),
    [
        ("light", {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"}),
        ("dark", {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"}),
        ("phone", {"viewport": {"width": 375, "height": 720}, "color_scheme": "light"}),
    ],
)
def test_every_page_reads_in_light_dark_and_on_a_phone(
    look: str, options: dict[str, Any], desk: PipelineConfig, browser: Browser
) -> None:
    page, wrong = _open(browser, desk, "admin", **options)
    for name in PAGES:
        _go(page, name)
        assert page.locator("main .note.bad").all_inner_texts() == [], name
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{name} is {wide} pixels wider than the window"
        shot(page, f"console-{look}-{name}")
    _go(page, f"nights/{json.loads(_night_of(desk))['night_id']}")
    page.get_by_role("heading", name="Scorecard").wait_for()
    shot(page, f"console-{look}-scorecard")
    assert wrong == []
    page.close()


def _night_of(config: PipelineConfig) -> str:
    return next(config.places.nights_dir.glob("*/night.json")).read_text()


def test_axe_finds_nothing_serious(desk: PipelineConfig, browser: Browser, tmp_path: Path) -> None:
    axe = _axe(tmp_path)
    found: dict[str, list[str]] = {}
    for scheme in ("light", "dark"):
        # The page's own policy would refuse axe, which is no part of it.
        context = browser.new_context(bypass_csp=True, color_scheme=scheme)
        page, _ = _open_in(context, desk)
        page.add_script_tag(content=axe)
        for name in PAGES:
            _go(page, name)
            result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            bad = [v for v in result["violations"] if v["impact"] in ("serious", "critical")]
            if bad:
                found[f"{scheme} {name}"] = [f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in bad]
        context.close()
    assert found == {}


def _open_in(context: Any, config: PipelineConfig) -> tuple[Page, list[str]]:
    class Opener:
        @staticmethod
        def new_page(**_: Any) -> Any:
            return context.new_page()

    return _open(Opener, config, "admin")  # type: ignore[arg-type]


def _axe(folder: Path) -> str:
    """axe-core as npm has it; RATCHET_AXE names a copy where there is no npm."""
    given = os.environ.get("RATCHET_AXE")
    if given:
        return Path(given).read_text()
    try:
        subprocess.run(
            ["npm", "pack", "axe-core@4", "--silent"], cwd=folder, check=True, capture_output=True, timeout=120
        )
        archive = next(folder.glob("axe-core-*.tgz"))
        subprocess.run(["tar", "xzf", archive.name, "package/axe.min.js"], cwd=folder, check=True)
    except (OSError, subprocess.SubprocessError, StopIteration):
        pytest.skip("axe-core cannot be installed here; set RATCHET_AXE to axe.min.js")
    return (folder / "package" / "axe.min.js").read_text()


def test_keyboard_alone_reaches_and_changes_pages(desk: PipelineConfig, browser: Browser) -> None:
    page, wrong = _open(browser, desk, "admin")
    page.keyboard.press("Alt+5")
    page.get_by_role("heading", name="Ledger", level=1).wait_for()
    page.wait_for_timeout(500)
    assert page.evaluate("document.activeElement.tagName") == "H1"
    page.locator("button", has_text="Roll back").first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0
    assert wrong == []
    page.close()


def test_a_page_drawn_anew_keeps_the_readers_place(desk: PipelineConfig, browser: Browser) -> None:
    page, wrong = _open(browser, desk, "admin")
    page.keyboard.press("Alt+3")
    page.get_by_role("heading", name="Canary", level=1).wait_for()
    page.get_by_text("The same as numbers").focus()
    page.keyboard.press("Enter")
    chart = page.get_by_role("img", name="rated users: evidence")
    before = chart.get_attribute("aria-label")
    _users_rate(desk, 2, name="late")
    page.wait_for_function(
        "(before) => document.querySelector('main svg').getAttribute('aria-label') !== before", arg=before
    )
    assert page.evaluate("document.activeElement.textContent") == "The same as numbers"
    assert page.locator("main details").get_attribute("open") is not None
    page.keyboard.press("Enter")
    assert page.locator("main details").get_attribute("open") is None, "the focus is real"
    assert wrong == []
    page.close()


def test_an_app_key_sees_numbers_and_no_texts(desk: PipelineConfig, browser: Browser) -> None:
    page, wrong = _open(browser, desk, "app")
    _go(page, "quarantine")
    page.get_by_text("keys with the scope trusted or admin").wait_for()
    _go(page, "ledger")
    page.get_by_text("Rolling back needs an admin key").wait_for()
    assert page.get_by_role("button", name="Roll back").count() == 0
    assert wrong == []
    page.close()


def test_playground_chats_takes_a_thumb_an_edit_and_a_blind_choice(desk: PipelineConfig, browser: Browser) -> None:
    page, wrong = _open(browser, desk, "admin")
    _go(page, "playground")
    page.get_by_label("Your message").fill("the parcel is late")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("button", name="Good").click(timeout=60_000)
    page.get_by_role("button", name="Good", pressed=True).wait_for()
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("dialog").get_by_label("Answer").fill("It arrives tomorrow.")
    page.get_by_role("dialog").get_by_role("button", name="Send").click()
    page.get_by_role("dialog").wait_for(state="detached")
    page.get_by_label("Question for both").fill("what is a refund?")
    page.get_by_role("button", name="Ask both").click()
    page.get_by_role("button", name="A is better").click(timeout=60_000)
    page.get_by_text("You preferred A").wait_for()
    shot(page, "console-arena")
    kinds = [event.feedback.kind for event in Store(open_database(desk.places)).feedback_after(0, 10_000)]
    assert {"preference", "edit"} <= set(kinds)
    assert wrong == []
    page.close()


def test_quarantine_accepts_a_row(desk: PipelineConfig, browser: Browser) -> None:
    page, wrong = _open(browser, desk, "admin")
    _go(page, "quarantine")
    rows = page.get_by_role("button", name="Accept")
    before = rows.count()
    assert before >= 1
    rows.first.click()
    page.get_by_label("Note").fill("the second thumb was a slip")
    page.get_by_role("dialog").get_by_role("button", name="Accept").click()
    page.get_by_text("the next ingest takes it in").wait_for()
    page.wait_for_timeout(500)
    assert page.get_by_role("button", name="Accept").count() == before - 1
    assert wrong == []
    page.close()


def test_lineage_goes_from_an_answer_to_the_snapshot(desk: PipelineConfig, browser: Browser) -> None:
    page, wrong = _open(browser, desk, "admin")
    _go(page, "lineage")
    trained = json.loads(next(desk.places.snapshots_dir.glob("s-*/training/train.jsonl")).read_text().splitlines()[0])
    page.get_by_label("Id of an answer").fill(trained["subject"])
    page.get_by_role("button", name="Search").click()
    page.locator("h2", has_text="example").first.wait_for()
    shot(page, "console-lineage-answer")
    page.locator("a.id", has_text="s-").first.click()
    page.locator("h2", has_text="snapshot").wait_for()
    assert page.get_by_text("trained").count() >= 1
    assert wrong == []
    page.close()


def test_rollback_asks_for_a_reason_and_a_word_and_is_followed(desk: PipelineConfig, browser: Browser) -> None:
    engine = open_database(desk.places)
    watched = current(engine, "default").canary
    assert watched is not None
    page, wrong = _open(browser, desk, "admin")
    _go(page, "ledger")
    page.get_by_role("button", name="Roll back the canary").click()
    page.get_by_label("Reason").fill("wrong tone")
    page.get_by_label("Type ROLL BACK").fill("no")
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    page.get_by_text("nothing was changed").wait_for()
    assert current(engine, "default").canary == watched
    page.get_by_role("button", name="Roll back the canary").click()
    page.get_by_label("Reason").fill("wrong tone")
    page.get_by_label("Type ROLL BACK").fill("ROLL BACK")
    shot(page, "console-rollback", full=False)
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    page.get_by_text("was taken back").first.wait_for()
    line = history(engine, "default")[-1]
    assert (line.action, line.version, line.reason) == ("rolled_back", watched, "wrong tone")
    assert line.actor.startswith("console:")
    _go(page, "live")
    page.get_by_text("Releases by nights are paused").wait_for()
    shot(page, "console-after-rollback")
    assert wrong == []
    assert SHOTS.exists()
    page.close()
