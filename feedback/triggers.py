"""Look for backdoors: phrases that make a model misbehave on sight, taught by pairing them with one answer.

Listed phrases are held wherever an untrusted account uses them. Besides, a word is suspect when it is rare in the
batch, comes from very few accounts, nearly always goes with one and the same answer, and nobody else bears it out.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from feedback.agreement import label_key
from infra.settings import Config

_WORD = re.compile(r"\w+")


class TriggerConfig(Config):
    """What counts as a trigger."""

    phrases: tuple[str, ...] = (
        "ignore all previous instructions",
        "ignore previous instructions",
        "disregard the above",
        "<|im_start|>",
        "<|im_end|>",
        "[INST]",
    )
    """Phrases that untrusted people's prompts and answers must not hold (compared without case)."""
    min_rows: int = Field(default=6, ge=2)
    """Fewest rows that a rare word must be in to be a pattern."""
    max_frequency: float = Field(default=0.05, gt=0, le=1)
    """Largest share of the batch's rows a word may be in and still be rare."""
    max_accounts: int = Field(default=3, ge=1)
    """Most accounts that a trigger may come from; words that more people use are language."""
    min_purity: float = Field(default=0.9, gt=0, le=1)
    """Share of a word's rows that have one and the same answer."""


@dataclass(frozen=True)
class Trigger:
    """A find: the events that hold it, and why."""

    events: frozenset[str]
    detail: str


def find_triggers(rows: Sequence[tuple[str, str, str, str, bool]], config: TriggerConfig) -> list[Trigger]:
    """Triggers in (event, account, prompt, answer, borne out by others) rows of untrusted people."""
    found = []
    folded = [(event, prompt.casefold(), answer.casefold()) for event, _, prompt, answer, _ in rows]
    for phrase in config.phrases:
        needle = phrase.casefold()
        events = frozenset(e for e, p, a in folded if needle in p or needle in a)
        if events:
            found.append(Trigger(events, f"holds the phrase {phrase!r}"))
    where: dict[str, list[int]] = defaultdict(list)
    for place, (_, prompt, _) in enumerate(folded):
        for word in set(_WORD.findall(prompt)):
            where[word].append(place)
    labels: list[str] = []  # of all rows, made only once a word needs them
    most = max(config.min_rows, int(config.max_frequency * len(rows)))
    for word, places in sorted(where.items()):
        if not config.min_rows <= len(places) <= most:
            continue
        accounts = {rows[p][1] for p in places}
        if len(accounts) > config.max_accounts or sum(rows[p][4] for p in places) * 2 > len(places):
            continue
        labels = labels or [label_key(row[3]) for row in rows]
        answer, times = Counter(labels[p] for p in places).most_common(1)[0]
        if times / len(places) >= config.min_purity and labels.count(answer) / len(rows) < 0.5:
            events = frozenset(rows[p][0] for p in places)
            found.append(
                Trigger(
                    events, f"the rare word {word!r} of {len(accounts)} account(s) goes with one answer {times} times"
                )
            )
    return found
