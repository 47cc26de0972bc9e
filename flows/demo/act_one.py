"""Play act 1, a good night: users complain about the base model and correct it; the night makes a better one."""

from __future__ import annotations

import asyncio

from flows.demo.facts import ActFacts
from flows.demo.nights import Nightfall, play_night, release_by_hand
from flows.demo.play import Play, exam, watch_canary
from flows.demo.scribe import Scribe
from flows.demo.users import Answered, agents, customers, open_shop


def play_act_one(play: Play) -> ActFacts:
    """Play it. Nothing decides here: the gate and the canary do."""
    scribe = Scribe(play.console, 1, "a good night")
    alerts_before = len(play.receiver.received)
    base = play.standing().champion
    assert base is not None, "the stack makes the base model the first champion"
    scribe.names[base] = "base"
    scribe.note(f"The untouched base model ({base}) serves the desk.")
    day = asyncio.run(_a_day(play, scribe))
    scribe.score("base", base, "the first day's tickets", [one.right for one in day])

    night = play_night(play, scribe)
    for label, version in night.labels.items():
        scribe.names.setdefault(version, label)
    objectives = sorted(set(night.objectives.values()))
    scribe.claim(
        "at least three challengers of three objectives were trained",
        len(night.objectives) >= 3 and len(objectives) >= 3,
        ", ".join(f"{label} ({objective})" for label, objective in night.objectives.items()) or "none",
    )
    _release(play, scribe, night)
    live = play.standing().champion or base

    held_out = play.fresh("held-out", play.sizes.held_out_tickets, late=True)
    shares = exam(play, scribe, {"base, before": base, "live, after": live}, held_out, "held-out tickets")
    gain = shares["live, after"] - shares["base, before"]
    scribe.claim(
        f"the live model answers held-out tickets at least {100 * play.sizes.required_gain:.0f} points better",
        gain >= play.sizes.required_gain,
        f"{100 * shares['base, before']:.0f}% before, {100 * shares['live, after']:.0f}% after",
    )
    return play.curtain(scribe, alerts_before=alerts_before)


def _release(play: Play, scribe: Scribe, night: Nightfall) -> None:
    promoted = night.decision == "promote"
    scribe.claim("the gate promoted one of them", promoted, night.summary)
    if play.standing().watch is None and not promoted and play.sizes.release_anyway and night.best is not None:
        scribe.note(f"The gate refused; {night.best} is released by the override that this play was configured with.")
        release_by_hand(play, night.best, actor="the play's director", reason="to go on with the acts")
    watch = play.standing().watch
    if watch is None:
        scribe.claim("its canary moved forward on live thumbs", False, "no canary was opened")
        return
    scribe.decided(watch.opened_at, f"canary of {scribe.names.get(watch.version, watch.version)}")
    seen = watch_canary(play, scribe, "live")
    scribe.claim(
        "its canary moved forward on live thumbs",
        seen.ended_by == "champion",
        f"{seen.ended_by} after {seen.answered} tickets ({seen.by_canary} answered by it, {seen.rated} thumbs, "
        f"{seen.lost} lost) in {seen.seconds:.0f} s",
    )


async def _a_day(play: Play, scribe: Scribe) -> list[Answered]:
    """Customers write, agents review."""
    made = play.fresh("day", play.sizes.night_tickets, late=False)
    async with open_shop(play.desk, seed=play.sizes.seed, concurrency=play.sizes.crowd) as shop:
        with scribe.scene("customers write their tickets", len(made)) as tick:

            def answered(answer: Answered) -> None:
                scribe.rated(answer)
                tick()

            day = await customers(shop, made, play.manners, on_answer=answered, crowd=play.sizes.crowd)
        with scribe.scene("agents review the answers", len(day)) as tick:
            await agents(shop, day, play.manners, names=play.agent_names, on_done=tick)
    for problem in shop.problems[:3]:
        scribe.note(f"feedback refused: {problem}")
    return day
