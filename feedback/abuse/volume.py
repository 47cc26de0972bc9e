"""Detect floods and bursts: accounts that give too much feedback, or too fast, whatever it says.

Both rules need what an import may lack. A file without a column of users says nothing of who spoke, so its rows all
bear the name of their source: they are nobody's share. A file without a column of times gives every row its own time,
so that the moment says nothing of how fast anybody spoke.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from feedback.events import Feedback

_GATEWAY = "gateway"

Exceeding = dict[str, tuple[list[Feedback], str]]
"""Account -> (what of its events is too much, the reason in a sentence)."""


def bursts(by_actor: Mapping[str, Sequence[Feedback]], *, most: int, seconds: float) -> Exceeding:
    """Find events that are among more than `most` of one account within so many seconds.

    Imported events that share their moment with others of the account do not count: it is the time of their file or
    of their lot, or one that was kept too coarsely to tell how fast they came.
    """
    exceeding: Exceeding = {}
    for actor, events in by_actor.items():
        ordered = _in_time(_timed(events))
        first = 0
        burst: dict[str, Feedback] = {}
        for place, event in enumerate(ordered):
            while (event.created_at - ordered[first].created_at).total_seconds() > seconds:
                first += 1
            if place - first + 1 > most:
                burst |= {e.event_id: e for e in ordered[first : place + 1]}
        if burst:
            exceeding[actor] = (list(burst.values()), f"{len(burst)} events, {most} within {seconds:g} s allowed")
    return exceeding


def floods(
    by_actor: Mapping[str, Sequence[Feedback]],
    earlier: Mapping[str, int],
    *,
    max_share: float,
    fair_multiple: float,
    min_events: int,
) -> Exceeding:
    """Find each account's latest events that exceed its share of the window; `earlier`: counts of the window so far.

    The share is `max_share` of all events, or `fair_multiple` times the mean account's where that is more, and never
    less than `min_events`.
    """
    accounts = by_actor.keys() | earlier.keys()
    total = sum(earlier.values()) + sum(len(events) for events in by_actor.values())
    share = max(max_share, fair_multiple / max(1, len(accounts)))
    allowed = max(min_events, int(share * total))
    exceeding: Exceeding = {}
    for actor, events in by_actor.items():
        room = max(0, allowed - earlier.get(actor, 0))
        if len(events) > room:
            count = len(events) + earlier.get(actor, 0)
            why = f"the account gave {count} of {total} in the window, at most {allowed} are taken"
            exceeding[actor] = (_in_time(events)[room:], why)
    return exceeding


def _timed(events: Sequence[Feedback]) -> list[Feedback]:
    """Events whose time was recorded, as far as that can be told."""
    moments = Counter(e.created_at for e in events if e.source != _GATEWAY)
    return [e for e in events if e.source == _GATEWAY or moments[e.created_at] == 1]


def _in_time(events: Sequence[Feedback]) -> list[Feedback]:
    return sorted(events, key=lambda e: (e.created_at, e.event_id))
