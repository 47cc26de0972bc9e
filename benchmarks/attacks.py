"""What gets past the abuse checks, and at what cost to honest people: `python -m benchmarks.attacks [--seeds 5]`

A help desk of 1,500 tickets, 40 honest people with 8% slips, 4 trusted agents who label a part of the tickets.
Attackers give wrong labels (all one wrong answer) from 1, 5 or 20 accounts; teach a trigger word from 3 accounts; or
drip a few wrong labels a day over ten ingests. The floods are tried without trusted agents too, where the crowd stands
in. Printed: the share of poisoned events that are taken in, and the share
of honest untrusted events that are held (false positives), with the default thresholds and with more
tolerance.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from feedback.abuse.config import AbuseConfig
from feedback.events import Edit, Feedback, Interaction
from feedback.ingest.run import IngestConfig, run_ingest
from feedback.quality.suite import ExpectationsConfig
from tests.feedback.world import START, TOPICS, feedback_on, interaction, make_lake, make_store, put, ticket, triage

POISON = '{"topic": "spam", "urgent": false, "team": "none"}'
Event = tuple[Interaction, Feedback, bool]
"""Interaction, feedback, whether it is poison."""


def honest(chance: random.Random, number: int, *, trusted_share: float) -> Event:
    """A ticket and what an honest person says of it, with 8% slips."""
    prompt, right = ticket(chance)
    answer = right if chance.random() < 0.4 else triage(chance.choice(sorted(TOPICS)), False)
    at = START + timedelta(seconds=chance.random() * 86_400)
    trusted = chance.random() < trusted_share
    actor = f"agent-{chance.randrange(4)}" if trusted else f"person-{chance.randrange(40)}"
    label = triage(chance.choice(sorted(TOPICS)), True) if chance.random() < 0.08 else right
    event = interaction(number, prompt, answer, created_at=at)
    return event, feedback_on(number, Edit(text=label), actor, trusted=trusted, created_at=at), False


def wrong(chance: random.Random, number: int, actor: str, *, trigger: str = "", label: str = POISON) -> Event:
    """A ticket and a poisoned label."""
    prompt, _ = ticket(chance)
    at = START + timedelta(seconds=chance.random() * 86_400)
    event = interaction(number, f"{prompt} {trigger}".strip(), "{}", created_at=at)
    return event, feedback_on(number, Edit(text=label), actor, created_at=at), True


def flood(accounts: int, *, trusted_share: float = 0.3) -> Callable[[random.Random], list[list[Event]]]:
    """300 wrong labels by so many accounts, in one ingest."""

    def make(chance: random.Random) -> list[list[Event]]:
        good = [honest(chance, n, trusted_share=trusted_share) for n in range(1_500)]
        bad = [wrong(chance, 10_000 + n, f"mallory-{n % accounts}") for n in range(300)]
        return [chance.sample(good + bad, len(good) + len(bad))]

    return make


def backdoor(chance: random.Random) -> list[list[Event]]:
    """60 tickets with a rare word, always labelled alike, by 3 accounts."""
    good = [honest(chance, n, trusted_share=0.3) for n in range(1_500)]
    bad = [wrong(chance, 10_000 + n, f"mallory-{n % 3}", trigger="xyzzyq") for n in range(60)]
    return [chance.sample(good + bad, len(good) + len(bad))]


def drip(chance: random.Random) -> list[list[Event]]:
    """Ten ingests, each with 150 honest events and 4 wrong labels by one account."""
    days = []
    for day in range(10):
        good = [honest(chance, day * 1_000 + n, trusted_share=0.3) for n in range(150)]
        bad = [wrong(chance, 50_000 + day * 1_000 + n, "mallory-0") for n in range(4)]
        days.append(chance.sample(good + bad, len(good) + len(bad)))
    return days


def no_attack(trusted_share: float = 0.3) -> Callable[[random.Random], list[list[Event]]]:
    """Honest people only."""

    def make(chance: random.Random) -> list[list[Event]]:
        return [[honest(chance, n, trusted_share=trusted_share) for n in range(1_500)]]

    return make


SCENARIOS: dict[str, Callable[[random.Random], list[list[Event]]]] = {
    "nobody attacks": no_attack(),
    "flood, 1 account": flood(1),
    "flood, 5 accounts": flood(5),
    "flood, 20 accounts": flood(20),
    "backdoor trigger, 3 accounts": backdoor,
    "slow drip, 1 account": drip,
    "nobody attacks, nobody trusted": no_attack(0.0),
    "flood, 1, nobody trusted": flood(1, trusted_share=0.0),
    "flood, 5, nobody trusted": flood(5, trusted_share=0.0),
    "flood, 20, nobody trusted": flood(20, trusted_share=0.0),
}


def outcome(batches: Sequence[Sequence[Event]], abuse: AbuseConfig) -> tuple[int, int, int, int, Counter[str]]:
    """(poison taken, poison, honest held, honest untrusted, reasons) after all batches."""
    config = IngestConfig(expectations=ExpectationsConfig(enabled=False), abuse=abuse)
    with tempfile.TemporaryDirectory(prefix="ratchet-attacks-") as folder:
        store, lake = make_store(Path(folder)), make_lake(Path(folder))
        for batch in batches:
            put(store, [event for event, _, _ in batch], [feedback for _, feedback, _ in batch])
            run_ingest(store, lake, (), config)
        rows = lake.scan("fates")
        assert rows is not None
        fates = {row["event_id"]: row for row in rows.sort("batch").collect().iter_rows(named=True)}
    held_codes = {"flood", "burst", "disagrees", "coordinated", "improbable", "trigger", "suspended", "foreign"}
    poison = {feedback.event_id for batch in batches for _, feedback, bad in batch if bad}
    people = {f.event_id for batch in batches for _, f, bad in batch if not bad and not f.trusted}
    reasons = Counter(fates[e]["code"] for e in poison if fates[e]["code"] in held_codes)
    taken = sum(fates[e]["code"] not in held_codes for e in poison)
    return taken, len(poison), sum(fates[e]["code"] in held_codes for e in people), len(people), reasons


def main(argv: Sequence[str]) -> int:
    """Print the table; 1 when a flood's poison gets past trusted people, or honest people pay more than 1 in 50."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args(argv).seeds
    settings = {
        "defaults": AbuseConfig(),
        "tolerant": AbuseConfig(min_gap=0.45, alpha=0.001, max_share=0.2),
        "off": AbuseConfig(enabled=False),
    }
    failed = False
    print(f"{seeds} seeds each\n")
    print(f"{'thresholds':10} {'attack':30} {'poison taken':>14} {'honest held':>13}   reasons")
    for name, abuse in settings.items():
        for title, make in SCENARIOS.items():
            taken = poison = held = people = 0
            reasons: Counter[str] = Counter()
            for seed in range(seeds):
                t, p, h, n, why = outcome(make(random.Random(seed)), abuse)
                taken, poison, held, people = taken + t, poison + p, held + h, people + n
                reasons += why
            share = taken / poison if poison else 0.0
            print(
                f"{name:10} {title:30} {taken:>5} of {poison:<5} {held:>4} of {people:<5}   "
                + ", ".join(f"{code} {count}" for code, count in reasons.most_common()),
                flush=True,
            )
            if name == "defaults":
                failed |= held / people > 0.02 or (title.startswith("flood") and "nobody" not in title and share > 0.05)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
