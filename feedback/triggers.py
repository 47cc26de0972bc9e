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
    for phrase in config.phrases:
        needle = phrase.casefold()
        events = frozenset(e for e, _, p, a, _ in rows if needle in p.casefold() or needle in a.casefold())
        if events:
            found.append(Trigger(events, f"holds the phrase {phrase!r}"))
    where: dict[str, list[int]] = defaultdict(list)
    for place, (_, _, prompt, _, _) in enumerate(rows):
        for word in set(_WORD.findall(prompt.casefold())):
            where[word].append(place)
    most = max(config.min_rows, int(config.max_frequency * len(rows)))
    for word, places in sorted(where.items()):
        if not config.min_rows <= len(places) <= most:
            continue
        accounts = {rows[p][1] for p in places}
        if len(accounts) > config.max_accounts or sum(rows[p][4] for p in places) * 2 > len(places):
            continue
        answer, times = Counter(label_key(rows[p][3]) for p in places).most_common(1)[0]
        overall = sum(label_key(r[3]) == answer for r in rows) / len(rows)
        if times / len(places) >= config.min_purity and overall < 0.5:
            events = frozenset(rows[p][0] for p in places)
            found.append(
                Trigger(
                    events, f"the rare word {word!r} of {len(accounts)} account(s) goes with one answer {times} times"
                )
            )
    return found
