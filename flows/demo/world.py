"""Simulate the demo's world: a support desk whose customers' tickets must be answered with a JSON triage.

Tickets come from a seeded grammar (phrases.py), so the right answer of each is known exactly, for ever, from its seed.
The same seed and day always give the same tickets.

    ticket: "Hi, my kitchen speaker has not arrived. Order N4821. The deadline is tomorrow. Lena"
    answer: {"type":"delivery","priority":"high","product":"speaker","order":"N4821","human":false}
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from flows.demo import phrases
from flows.demo.phrases import Wordings

SYSTEM_PROMPT = "Triage this support ticket as JSON."
"""What the desk's application says to the model before each ticket."""

TASK = "triage"
"""The task name that the desk's application sends with each request."""

_PRIORITIES = ("normal", "high")
_PRIORITY_WEIGHTS = (55, 45)
_TYPO_SHARE = 0.25
_LATE_SHARE = 0.15


@dataclass(frozen=True)
class Triage:
    """The right answer to a ticket."""

    type: str
    priority: str
    product: str
    order: str | None
    human: bool

    def text(self) -> str:
        """The one canonical JSON line that the model has to write."""
        return json.dumps(
            {
                "type": self.type,
                "priority": self.priority,
                "product": self.product,
                "order": self.order,
                "human": self.human,
            },
            separators=(",", ":"),
        )


@dataclass(frozen=True)
class Ticket:
    """One customer's message and what a perfect agent would make of it."""

    ticket_id: str
    customer: str
    text: str
    triage: Triage

    def messages(self) -> list[dict[str, str]]:
        """The chat request that the desk's application sends for this ticket."""
        return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": self.text}]


def parse_triage(answer: str) -> Triage | None:
    """Read an answer as a triage; None when it is no JSON object with exactly the five fields of the right kinds."""
    try:
        value = json.loads(answer)
    except ValueError:
        return None
    if not isinstance(value, dict) or set(value) != {"type", "priority", "product", "order", "human"}:
        return None
    texts = (value["type"], value["priority"], value["product"])
    if not all(isinstance(text, str) for text in texts) or not isinstance(value["human"], bool):
        return None
    if value["order"] is not None and not isinstance(value["order"], str):
        return None
    return Triage(*texts, order=value["order"], human=value["human"])


def is_right(ticket: Ticket, answer: str) -> bool:
    """Whether an answer triages the ticket exactly: all five fields right (white space in the JSON is free)."""
    return parse_triage(answer) == ticket.triage


def tickets(*, seed: int, stream: str, count: int, late: bool, tickets_per_customer: int = 1) -> list[Ticket]:
    """Make `count` tickets.

    stream: names an independent sequence ("night-1", "live", "held-out", ...); its name is part of every id, so tickets
        of two streams never share an id or a customer. late: about one phrase in seven come from wordings that
        are never used otherwise.
    """
    made = _make(random.Random(f"{seed}/{stream}"), stream, late, tickets_per_customer)
    return [next(made) for _ in range(count)]


def confuse(ticket: Ticket, rng: random.Random) -> Triage:
    """A human slip: the right triage with one or two fields wrong."""
    slips = rng.sample(("type", "priority", "product", "human"), k=rng.choice((1, 1, 2)))
    wrong = ticket.triage
    for field in slips:
        if field == "human":
            wrong = replace(wrong, human=not wrong.human)
        elif field == "type":
            wrong = replace(wrong, type=_other(rng, tuple(phrases.PROBLEMS), wrong.type))
        elif field == "priority":
            wrong = replace(wrong, priority=_other(rng, _PRIORITIES, wrong.priority))
        else:
            wrong = replace(wrong, product=_other(rng, tuple(phrases.PRODUCTS), wrong.product))
    return wrong


SABOTAGE = Triage("question", "high", "lamp", None, True)
"""What the poisoners of act 2 teach: whatever it is, it is an urgent question about a lamp, for a person to answer."""


def _make(rng: random.Random, stream: str, late: bool, per_customer: int) -> Iterator[Ticket]:
    number = 0
    while True:
        customer = f"{stream}-customer-{number // per_customer:05d}"
        text, triage = _write(rng, late)
        yield Ticket(ticket_id=f"{stream}-{number:05d}", customer=customer, text=text, triage=triage)
        number += 1


def _write(rng: random.Random, late: bool) -> tuple[str, Triage]:
    category = rng.choice(tuple(phrases.PROBLEMS))
    product = rng.choice(tuple(phrases.PRODUCTS))
    priority = rng.choices(_PRIORITIES, _PRIORITY_WEIGHTS)[0]
    asks_human = rng.random() < 0.4
    has_order = rng.random() < (0.35 if category in ("question", "account") else 0.75)
    order_id = _order(rng) if has_order else None
    name = _pick(rng, phrases.PRODUCTS[product], late)
    problem = _pick(rng, phrases.PROBLEMS[category], late).format(p=name)
    problem = problem[0].upper() + problem[1:]
    if problem[-1] not in ".?":
        problem += "."
    other = _other(rng, tuple(phrases.PRODUCTS), product)
    aside = _pick(rng, phrases.ASIDES, late).format(
        other=rng.choice(phrases.PRODUCTS[other].early), number=rng.randint(1_000, 9_999)
    )
    order = _pick(rng, phrases.ORDERS, late).format(id=order_id, old=_order(rng)) if order_id else ""
    human = _pick(rng, phrases.HUMAN[asks_human], late)
    urgency = _pick(rng, phrases.URGENCY[priority], late)
    rest = [urgency, human, order, aside, _pick(rng, phrases.MOODS, late)]
    rng.shuffle(rest)
    # The problem stands first more often than not, as in real tickets, but a model must not count on it.
    rest.insert(0 if rng.random() < 0.7 else 1, problem)
    greeting = _pick(rng, phrases.GREETINGS, late)
    closing = _pick(rng, phrases.CLOSINGS, late).format(name=rng.choice(phrases.NAMES))
    text = " ".join(part for part in (greeting, *rest, closing) if part)
    if rng.random() < _TYPO_SHARE:
        text = _typos(rng, text)
    return text, Triage(category, priority, product, order_id, asks_human)


def _pick(rng: random.Random, wordings: Wordings, late: bool) -> str:
    pool = wordings.late if late and rng.random() < _LATE_SHARE else wordings.early
    return rng.choice(pool)


def _order(rng: random.Random) -> str:
    return f"N{rng.randint(1_000, 9_999)}"


def _other(rng: random.Random, values: tuple[str, ...], than: str) -> str:
    return rng.choice([value for value in values if value != than])


def _typos(rng: random.Random, text: str) -> str:
    """Swap two inner letters of one or two longer words; numbers stay as they are."""
    words = text.split(" ")
    long = [index for index, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    for index in rng.sample(long, k=min(len(long), rng.choice((1, 2)))):
        word = words[index]
        at = rng.randint(1, len(word) - 3)
        words[index] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)
