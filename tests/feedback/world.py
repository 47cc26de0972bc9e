"""A small help desk whose feedback the tests ingest: tickets in several phrasings, answered with a JSON triage."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from feedback.events import Edit, Feedback, Interaction, Message, Thumb, Value
from feedback.ingest.run import IngestConfig
from feedback.lake.lake import Lake
from feedback.quality.suite import ExpectationsConfig
from feedback.store.store import Store, land_feedback, land_interactions
from infra.database.connect import begin_write, connect
from infra.database.schema import create_tables

START = datetime(2026, 1, 1, tzinfo=UTC)
QUIET = ExpectationsConfig(enabled=False)
FAST = IngestConfig(expectations=QUIET)
"""Without the suite, which costs seconds a run; tests of the suite have it on."""

TOPICS = {
    "billing": ("invoice", "charge", "refund", "payment", "subscription fee"),
    "network": ("router", "wifi", "connection", "latency", "signal"),
    "account": ("password", "login", "profile", "username", "two-factor code"),
    "shipping": ("parcel", "delivery", "courier", "tracking", "package"),
}
PHRASES = (
    "Hello, my {thing} has been wrong since {day}, can somebody look at case {case}?",
    "The {thing} does not work for me, I tried {day} already. Reference {case}.",
    "Since {day} I have trouble with the {thing}; please help, ticket {case}",
    "I need help with a {thing}, it failed on {day} and the number is {case}.",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def make_store(path: Path) -> Store:
    engine = connect(f"sqlite:///{path / 'store.db'}")
    import feedback.lake.quarantine
    import feedback.sources.landing

    assert feedback.lake.quarantine and feedback.sources.landing  # their tables are declared
    create_tables(engine)
    return Store(engine)


def make_lake(path: Path) -> Lake:
    return Lake(path / "lake")


def interaction(number: int | str, prompt: str, answer: str = "an answer", **fields: object) -> Interaction:
    values = {
        "interaction_id": f"i{number}",
        "tenant": "acme",
        "user": f"user-{number}",
        "version": "v1",
        "messages": (Message(role="user", content=prompt),),
        "answer": answer,
        "created_at": START,
    }
    return Interaction.model_validate(values | fields)


def feedback_on(number: int | str, value: Value, actor: str = "someone", **fields: object) -> Feedback:
    values = {
        "event_id": f"e{number}-{value.kind}-{actor}",
        "tenant": "acme",
        "interaction_id": f"i{number}",
        "actor": actor,
        "value": value,
        "created_at": START,
    }
    return Feedback.model_validate(values | fields)


def triage(topic: str, urgent: bool) -> str:
    return json.dumps({"topic": topic, "urgent": urgent, "team": f"{topic}-team"})


def ticket(chance: random.Random) -> tuple[str, str]:
    """(prompt, right answer)"""
    topic = chance.choice(sorted(TOPICS))
    prompt = chance.choice(PHRASES).format(
        thing=chance.choice(TOPICS[topic]), day=chance.choice(DAYS), case=chance.randrange(10_000)
    )
    return prompt, triage(topic, "trouble" in prompt)


def fill(
    store: Store,
    *,
    tickets: int,
    seed: int = 0,
    honest: int = 40,
    trusted: int = 4,
    trusted_share: float = 0.4,
    error: float = 0.08,
    bad_accounts: int = 0,
    bad_events: int = 0,
) -> set[str]:
    """People's edits and thumbs on tickets, honest ones with human error. Returns the ids of poisoned events."""
    chance = random.Random(seed)
    rows: list[tuple[Interaction, Feedback]] = []
    poisoned: set[str] = set()
    for number in range(tickets + bad_events):
        prompt, right = ticket(chance)
        bad = number >= tickets
        answer = right if chance.random() < 0.4 else triage(chance.choice(sorted(TOPICS)), False)
        at = START + timedelta(seconds=chance.random() * 86_400)
        event = interaction(number, prompt, answer, created_at=at)
        is_trusted = not bad and chance.random() < trusted_share
        actor = f"agent-{chance.randrange(trusted)}" if is_trusted else f"person-{chance.randrange(honest)}"
        value: Value
        if bad:
            actor = f"mallory-{number % bad_accounts}"
            wrong = Edit(text=json.dumps({"topic": "spam", "urgent": False, "team": "none"}))
            value = wrong if chance.random() < 0.7 else Thumb(up=answer != right)
        else:
            slip = chance.random() < error
            best = triage(chance.choice(sorted(TOPICS)), True) if slip else right
            value = Thumb(up=not slip) if answer == right else Edit(text=best)
        feedback = feedback_on(number, value, actor, trusted=is_trusted, created_at=at + timedelta(minutes=1))
        if bad:
            poisoned.add(feedback.event_id)
        rows.append((event, feedback))
    chance.shuffle(rows)
    put(store, [event for event, _ in rows], [feedback for _, feedback in rows])
    return poisoned


def put(store: Store, asked: Sequence[Interaction], words: Sequence[Feedback]) -> None:
    """All at once: one transaction instead of one each."""
    with begin_write(store.database) as connection:
        land_interactions(connection, asked)
        land_feedback(connection, words)
