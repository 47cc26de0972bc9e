"""Play act 3, a bad release: somebody overrides the gate; the live thumbs fall, and the controller takes it back."""

from __future__ import annotations

from deploy.ledger.ledger import Entry
from deploy.release.manual_controls import lift_bar, resume
from feedback.store.store import Store
from flows.demo.desk import TENANT
from flows.demo.facts import ActFacts
from flows.demo.nights import release_by_hand
from flows.demo.play import Play, watch_canary
from flows.demo.scribe import Scribe

_WHO = "Robin (release manager)"


def play_act_three(play: Play, bad: str) -> ActFacts:
    """Play it with the challenger that the gate refused in act 2."""
    scribe = Scribe(play.console, 3, "a bad release")
    alerts_before = len(play.receiver.received)
    before = play.standing()
    good = before.champion or ""
    scribe.names[bad] = "the bad release"
    if bad in before.barred:
        lift_bar(play.engine, TENANT, bad, actor=_WHO, reason="the act is played again")
    if before.paused:
        resume(play.engine, TENANT, actor=_WHO, reason="the act is played again")
    entry = release_by_hand(play, bad, actor=_WHO, reason="the customer cannot wait for the gate")
    scribe.note(f"{_WHO} releases {bad}, which the gate refused, by an override in that name.")
    scribe.decided(entry.at, "released by hand")

    seen = watch_canary(play, scribe, "after-release")
    end = _rollback(play, entry)
    arms = _arms(play, entry)
    scribe.claim(
        "the controller took it back by itself",
        end is not None and end.actor == "controller",
        f"{end.action.replace('_', ' ')} by {end.actor}: {end.reason}" if end else f"it did not ({seen.ended_by})",
    )
    scribe.note(
        f"It took {seen.answered} tickets ({seen.by_canary} of them answered by the bad release), {seen.rated} thumbs "
        f"and {seen.seconds:.0f} s. Thumbs up by user: {arms}."
    )
    scribe.claim("no request was lost", seen.lost == 0, f"{seen.lost} of {seen.answered} requests")
    live = play.standing().champion
    scribe.claim("the champion before it is live, the bad one barred", live == good and bad in play.standing().barred,
                 f"{live} is live")  # fmt: skip
    alert = play.receiver.wait_for("rolled_back", after=alerts_before, seconds=20.0)
    scribe.claim(
        "the alert arrived at the webhook, rightly signed",
        alert is not None and alert.signed,
        alert.title if alert else "none came",
    )
    return play.curtain(scribe, alerts_before=alerts_before)


def _rollback(play: Play, opened: Entry) -> Entry | None:
    return next((e for e in play.lines() if e.seq > opened.seq and e.action == "rolled_back"), None)


def _arms(play: Play, opened: Entry) -> str:
    by_arm: dict[str, list[float]] = {}
    for unit in Store(play.engine).rated_units(TENANT, opened.seq):
        by_arm.setdefault(unit.arm, []).append(unit.score)
    parts = [
        f"{sum(score >= 0.5 for score in scores)} of {len(scores)} ({arm})" for arm, scores in sorted(by_arm.items())
    ]
    return ", ".join(parts) or "none"
