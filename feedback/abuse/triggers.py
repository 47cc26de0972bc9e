"""Detect backdoor triggers: phrases that make a model misbehave on sight, taught by pairing them with one answer.

Listed phrases are looked for in all that would train of what an untrusted account said or judged: prompts, answers,
both sides of a pair, answers with a thumb down, and documents. Besides, a word of a prompt is suspect when it is rare
in the batch, comes from very few accounts, nearly always goes with one and the same answer, and nobody else bears it
out. Rejected answers are not looked through for such words: they teach what not to say, so nothing makes a model say
them. Nor are documents, which have no prompt and no answer for a word to go with: a rare word that the same text always
follows is what headings and footers are. System messages come from the application, not from its users.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from feedback.abuse.agreement import label_key
from feedback.events import Feedback, Interaction, texts_of
from feedback.examples import user_text
from feedback.text.vocabulary import TokenIndex
from infra.settings import Config

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
    """Phrases that nothing may hold that would train by an untrusted person's word (compared without case)."""
    min_rows: int = Field(default=6, ge=2)
    """Fewest rows that a rare word must be in to be a pattern."""
    max_frequency: float = Field(default=0.05, gt=0, le=1)
    """Largest share of the batch's rows a word may be in and still be rare."""
    max_accounts: int = Field(default=3, ge=1)
    """Most accounts that a trigger may come from; words that more people use are language."""
    min_purity: float = Field(default=0.9, gt=0, le=1)
    """Share of a word's rows that have one and the same answer."""


class TriggerRow(NamedTuple):
    """A claim as triggers are looked for in it."""

    event_id: str
    account: str
    prompt: str
    answer: str
    borne_out: bool
    """Whether others' claims bear it out."""


@dataclass(frozen=True)
class Trigger:
    """A trigger: the events that hold it, and why."""

    events: frozenset[str]
    detail: str


def find_phrases(events: Sequence[tuple[Interaction | None, Feedback]], config: TriggerConfig) -> list[Trigger]:
    """Find listed phrases in what untrusted people said, and in what they said it of."""
    holders: dict[str, list[str]] = {}
    needles = {phrase: phrase.casefold() for phrase in config.phrases}
    for about, event in events:
        shown = () if about is None else (user_text(about.messages), about.answer)
        text = "\0".join([*shown, *texts_of(event.value)]).casefold()
        for phrase, needle in needles.items():
            if needle in text:
                holders.setdefault(phrase, []).append(event.event_id)
    return [Trigger(frozenset(events), f"holds the phrase {phrase!r}") for phrase, events in holders.items()]


def find_words(rows: Sequence[TriggerRow], config: TriggerConfig, tokens: TokenIndex | None = None) -> list[Trigger]:
    """Find suspect words in claims of untrusted people.

    `tokens` holds the words of prompts that were split before.
    """
    triggers = []
    labels: list[str] = []  # of all rows, made only once a word needs them
    for word, places, accounts in _suspect_words(rows, config, TokenIndex() if tokens is None else tokens):
        labels = labels or [label_key(row.answer) for row in rows]
        answer, times = Counter(labels[p] for p in places).most_common(1)[0]
        if times / len(places) >= config.min_purity and labels.count(answer) / len(rows) < 0.5:
            events = frozenset(rows[p].event_id for p in places)
            triggers.append(
                Trigger(events, f"the rare word {word!r} of {accounts} account(s) goes with one answer {times} times")
            )
    return triggers


def _suspect_words(
    rows: Sequence[TriggerRow], config: TriggerConfig, tokens: TokenIndex
) -> list[tuple[str, list[int], int]]:
    """(word, rows it is in, how many accounts these are of): rare, of few accounts, and borne out by nobody else."""
    import numpy as np

    if not rows:
        return []
    numbers, counts = tokens.token_ids([row.prompt for row in rows])
    account_of = {account: number for number, account in enumerate(dict.fromkeys(row.account for row in rows))}
    account = np.asarray([account_of[row.account] for row in rows])
    borne_out = np.asarray([row.borne_out for row in rows], dtype=np.int64)
    cells = _distinct(numbers * len(rows) + np.repeat(np.arange(len(rows)), counts))  # by word, then by row
    word, place = np.divmod(cells, len(rows))
    times = np.bincount(word, minlength=len(tokens))
    most = max(config.min_rows, int(config.max_frequency * len(rows)))
    speakers = _distinct(word * len(account_of) + account[place]) // len(account_of)
    accounts = np.bincount(speakers, minlength=len(tokens))
    agreed = np.bincount(word, borne_out[place], minlength=len(tokens))
    suspect = (times >= config.min_rows) & (times <= most) & (accounts <= config.max_accounts) & (2 * agreed <= times)
    ends, words = np.cumsum(times), tokens.tokens()
    return sorted(
        (words[each], place[ends[each] - times[each] : ends[each]].tolist(), int(accounts[each]))
        for each in np.flatnonzero(suspect).tolist()
    )


def _distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The different values, in order: by sorting, many times faster here than numpy's own `unique`, which hashes."""
    import numpy as np

    ordered = np.sort(values)
    first: NDArray[np.int64] = ordered[np.diff(ordered, prepend=-1) != 0]
    return first
