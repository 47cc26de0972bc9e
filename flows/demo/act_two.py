"""Play act 2, a poisoned night: a few accounts flood the desk with one wrong lesson.

First as Ratchet is: the intake holds it back, and says why. Then with that defence switched off, into a scratch lake:
the same nightly flow trains a challenger on the poison, and the gate, which only trusted people's labels stand in, has
to see it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from typing import Any

from feedback.lake.frames import QuarantineRow
from feedback.lake.lake import lake_of
from feedback.lake.quarantine import held_rows
from feedback.store.store import Store
from feedback.store.user_salt import pseudonym
from flows.config.load import load_config
from flows.config.pipeline import PipelineConfig
from flows.demo.desk import TENANT
from flows.demo.facts import ActFacts
from flows.demo.home import CONFIG
from flows.demo.nights import SCRATCH, Nightfall, play_intake, play_night
from flows.demo.play import Play
from flows.demo.scribe import Scribe
from flows.demo.users import Answered, agents, customers, open_shop, poisoners
from infra.artifact import atomic_write
from infra.settings import secret

_POISON_FILE = "poisoned-version.txt"


def play_act_two(play: Play) -> ActFacts:
    """Play it. The version that learnt the poison is kept for act 3."""
    scribe = Scribe(play.console, 2, "a poisoned night")
    alerts_before = len(play.receiver.received)
    champion = play.standing().champion or ""
    poison, honest = asyncio.run(_a_day(play, scribe))
    _defended(play, scribe, poison, honest)
    night = _undefended(play, scribe)
    for label, version in night.labels.items():
        scribe.names.setdefault(version, label)
    scribe.claim(
        "with the defence off, the gate does not promote what learnt the poison",
        night.decision in ("reject", "inconclusive"),
        night.summary,
    )
    scribe.claim("the live model stays", play.standing().champion == champion, f"{champion} is live")
    alert = play.receiver.wait_for("held", after=alerts_before, seconds=20.0)
    scribe.claim(
        "an alert arrived at the webhook, rightly signed",
        alert is not None and alert.signed,
        alert.title if alert else "none came",
    )
    if night.best is not None:
        (play.home / _POISON_FILE).write_text(night.best)
    return play.curtain(scribe, alerts_before=alerts_before)


def poisoned_version(play: Play) -> str | None:
    """The version that learnt the poison, when act 2 was played."""
    path = play.home / _POISON_FILE
    return path.read_text() if path.exists() else None


def poison_names(play: Play) -> list[str]:
    """The poisoners' accounts."""
    return [f"night-owl-{index + 1}" for index in range(play.sizes.poison_accounts)]


def undefended(config: PipelineConfig, recipe: str) -> dict[str, Any]:
    """The same pipeline, servers and ledger, with the defence against abuse switched off and a lake of its own."""
    values = config.model_dump(mode="json")
    places = config.places
    values["ingest"]["abuse"]["enabled"] = False
    values["training"]["methods"] = [recipe]
    values["places"].update(
        home=".",
        cache=str(places.cache_dir),
        database_url=places.database,
        mlflow_url=places.mlflow,
        prefect_api_url=places.prefect_api,
    )
    return values


async def _a_day(play: Play, scribe: Scribe) -> tuple[list[Answered], list[Answered]]:
    sizes = play.sizes
    flood = play.fresh("flood", sizes.poison_tickets, late=False)
    ordinary = play.fresh("ordinary", sizes.honest_tickets, late=True)
    with scribe.scene("customers write, and a few accounts flood the desk", len(flood) + len(ordinary)) as tick:

        def answered(answer: Answered) -> None:
            scribe.rated(answer)
            tick()

        async with open_shop(play.desk, seed=sizes.seed, concurrency=sizes.crowd) as shop:
            poison, honest = await asyncio.gather(
                poisoners(shop, flood, names=poison_names(play), on_answer=lambda _: tick()),
                customers(shop, ordinary, play.manners, on_answer=answered, crowd=max(1, sizes.crowd // 4)),
            )
            await agents(shop, honest, play.manners, names=play.agent_names, on_done=lambda: None)
    return poison, honest


def _defended(play: Play, scribe: Scribe, poison: list[Answered], honest: list[Answered]) -> None:
    """The intake as it is: what it held back, of whom, and why."""
    play_intake(play, scribe)
    bad_actors = {pseudonym(name, secret("RATCHET_USER_SALT")) for name in poison_names(play)}
    said = {True: 0, False: 0}
    held: dict[bool, list[QuarantineRow]] = {True: [], False: []}
    store = Store(play.engine)
    rows = held_rows(store, lake_of(play.config.places), tenant=TENANT)
    by_event = {event: row for row in rows for event in row.events}
    for one in (*poison, *honest):
        for event in store.feedback_for(TENANT, one.interaction_id):
            bad = event.actor in bad_actors
            said[bad] += 1
            if event.event_id in by_event:
                held[bad].append(by_event[event.event_id])
    scribe.quarantine = dict(Counter(f"{row.step}: {row.code}" for row in held[True] + held[False]).most_common())
    scribe.quarantined = [(f"{row.code}: {row.detail}", _excerpt(row)) for row in _one_each(held[True] + held[False])]
    for reason, text in scribe.quarantined:
        scribe.note(f"held back: {reason} ({text})")
    share = len(held[True]) / said[True] if said[True] else 0.0
    scribe.claim(
        "the intake held back what the poisoners said",
        share >= play.sizes.required_held,
        f"{len(held[True])} of {said[True]} events of {len(bad_actors)} accounts",
    )
    # A customer's thumb that an agent's correction contradicts is held too, rightly: that is not taking her for a
    # poisoner.
    accused = sum(row.step == "abuse" for row in held[False])
    scribe.claim(
        "and took hardly any honest person for a poisoner",
        accused <= play.sizes.allowed_false_holds * max(1, said[False]),
        f"{accused} of {said[False]} events of honest people held as abuse",
    )


def _undefended(play: Play, scribe: Scribe) -> Nightfall:
    import yaml

    scratch = play.home / SCRATCH
    if scratch.exists():
        shutil.rmtree(scratch)
    scratch.mkdir(parents=True)
    # The versions are the same ones: the gate needs the champion, and act 3 what this night makes.
    versions = play.config.places.versions_dir
    versions.mkdir(parents=True, exist_ok=True)
    (scratch / "versions").symlink_to(versions, target_is_directory=True)
    atomic_write(scratch / CONFIG, yaml.safe_dump(undefended(play.config, play.sizes.poison_recipe), sort_keys=False))
    scribe.note("Now the same night with the defence against abuse switched off, into a scratch lake.")
    return play_night(play, scribe, config=load_config(scratch / CONFIG))


def _one_each(rows: list[QuarantineRow]) -> list[QuarantineRow]:
    """One row for each reason."""
    return list({row.code: row for row in rows}.values())[:6]


def _excerpt(row: QuarantineRow) -> str:
    """What was said, in short."""
    try:
        value = json.loads(row.content)["feedback"]["value"]
    except (ValueError, KeyError, TypeError):
        return row.content[:160]
    said = value.get("text") or value.get("chosen") or ("thumb up" if value.get("up") else "thumb down")
    return f"{value.get('kind', '?')}: {said}"[:160]
