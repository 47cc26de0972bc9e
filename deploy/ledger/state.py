"""Define ledger entries and the release state that they add up to: who is live, watched, barred.

deploy/ledger/transitions.py folds the one into the other.

A release goes gated, canary (once per step of its share), champion, then superseded or barred:

    baseline     the untouched base model becomes the first champion
    inherited    a tenant without a champion of its own takes the shared one for its own nights and canaries
    held         a night ended without a release; nothing moves
    gated        a version passed the gate (or a named person overrode it) and may open a canary; with a share, that
                 share of requests is answered by it too, unseen (shadow)
    canary       the share of new units that the version answers is set; the first such line opens the watch
    champion     the version is live; the one before it stays on for the holdback's share
    superseded   the one before it is no longer kept beside it; the watch ends
    withdrawn    a gated or watched version stops without a verdict against it
    rolled_back  the version is taken back and barred, and `previous` is live again: one line
    barred       a person bars a version that is not live
    unbarred     a person lifts a bar
    paused       promotions by the nightly run stop
    resumed      and go on
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal, get_args

from pydantic import Field

from deploy.ledger.evidence import Evidence
from infra.database.connect import now
from infra.errors import UserError
from infra.settings import Config
from infra.stored_model import Stored

Action = Literal[
    "baseline",
    "inherited",
    "held",
    "gated",
    "canary",
    "champion",
    "superseded",
    "withdrawn",
    "rolled_back",
    "barred",
    "unbarred",
    "paused",
    "resumed",
]


DRILL_TENANT = "ratchet-drill"
"""The tenant without users that rollback drills are done with (deploy/rollback_drill.py)."""


ACTIONS: frozenset[str] = frozenset(get_args(Action))
UNREADABLE = "unreadable"
"""Action of a line whose columns do not fit (see `deploy.ledger.ledger.history`)."""
_RELEASES = ("gated", "canary", "champion", "superseded", "withdrawn", "rolled_back")


class RefusedTransition(UserError):
    """The line asked for does not follow from what stands."""


class TemporarilyBlocked(RefusedTransition):
    """A release that may not open now, for a cause that passes: another watch, a pause, another champion."""


class UnknownAction(RefusedTransition):
    """A line that another release of Ratchet wrote: what it means is not known here."""


class Entry(Stored):
    """One line of the ledger."""

    seq: int = 0
    """Place in the ledger, over all tenants; given by `append`. Order is by this, never by clocks."""
    tenant: str
    """Whose release it is."""
    tenant_seq: int = 0
    """Place among this tenant's lines, without gaps; given by `append`."""
    action: str
    """What happened. A line that is written has one of `Action`; one that is read may have been written by a newer
    release, and then nothing is decided on it here."""
    version: str
    """The version it happened to."""
    previous: str | None = None
    """champion: the version replaced. canary: the champion it is compared with. rolled_back: the version now live."""
    share: float | None = Field(default=None, ge=0, le=1)
    """canary: chance that a unit first seen from now on is answered by `version`. champion: the holdback's chance.
    gated: share of requests that `version` answers in shadow."""
    actor: str
    """Who or what did it: "night", "controller", "mlflow", or a person's name."""
    reason: str
    """Why, in one sentence."""
    evidence: Evidence = Evidence()
    """What it rests on. `night_id` makes an entry happen once per night, `paused_until` ends a pause."""
    at: datetime = Field(default_factory=now)
    """When (UTC)."""

    @property
    def night_id(self) -> str | None:
        """The night this line belongs to, if it was written by one."""
        return self.evidence.night_id


class Watch(Config):
    """An open comparison of a new version with the one before it, on concurrently randomised units."""

    version: str
    """The version under watch (the treated arm)."""
    previous: str
    """The version it is compared with (the control arm)."""
    phase: Literal["canary", "holdback"]
    """canary: `previous` is champion. holdback: `version` is champion and `previous` keeps a small share."""
    opened_seq: int
    """The first canary entry; it seeds the hash that assigns units to arms, in both phases, so nobody changes arms."""
    opened_at: datetime
    """When the watch opened."""
    step: int
    """Number of the current step of the canary share, from 0."""
    step_seq: int
    """The line that set the current share."""
    step_at: datetime
    """When the current share was set."""
    share: float
    """Chance that a unit first seen from now on is answered by `version` (in both phases)."""
    shares: tuple[tuple[int, float], ...]
    """Every share so far with the line that set it, in order."""
    champion_seq: int | None = None
    """The champion line, in the holdback phase."""

    @property
    def release_seq(self) -> int:
        """What interactions carry as their release: the first canary line, and after promotion the champion line.

        Under the first, arm "canary" is `version`; under the second, arm "champion" is `version` and "holdback" is
        `previous`.
        """
        return self.opened_seq if self.champion_seq is None else self.champion_seq


class ReleaseState(Config):
    """What is true for one tenant after its last line."""

    tenant: str
    """Whose standing this is."""
    seq: int = 0
    """Ledger place of the last line; what `append` expects. 0 before the first."""
    tenant_seq: int = 0
    """Number of this tenant's lines."""
    champion: str | None = None
    """The live version; None before the baseline."""
    champion_seq: int = 0
    """The line that made it champion."""
    since: datetime | None = None
    """Since when it is live."""
    previous: str | None = None
    """The champion before it, where a rollback goes; None means the base model."""
    base: str | None = None
    """The untouched base model's version."""
    gated: str | None = None
    """A version that may open a canary and has not yet."""
    gated_seq: int = 0
    """The line that gated it."""
    gated_at: datetime | None = None
    """When it was gated."""
    shadow_share: float = 0.0
    """Share of requests that the gated version answers too, unseen."""
    watch: Watch | None = None
    """The open watch: at most one."""
    barred: Mapping[str, str] = {}
    """Barred version -> reason."""
    paused: bool = False
    """Whether promotions by the nightly run are stopped (see `paused_at`)."""
    paused_until: datetime | None = None
    """When the pause ends by itself; None: when a person resumes."""
    own_champion: bool = False
    """Whether a version of this tenant's own ever became champion; until then it takes over the shared one."""
    champions: tuple[str, ...] = ()
    """Champions in order, those taken back left out; the last is live. Where repeated rollbacks lead."""
    unread: str | None = None
    """Which line could not be followed and why, where the rest is only what is known without it (`last_known`)."""

    @property
    def predecessor(self) -> str | None:
        """What the champion is held beside when it is scored again: the one before it, or else the base model."""
        return self.previous or self.base

    @property
    def canary(self) -> str | None:
        """The version that a share of units gets beside the champion, while it is not champion."""
        return self.watch.version if self.watch and self.watch.phase == "canary" else None

    @property
    def canary_share(self) -> float:
        """Chance that a unit first seen now gets the canary; 0 without one."""
        return self.watch.share if self.watch and self.watch.phase == "canary" else 0.0

    @property
    def holdback(self) -> str | None:
        """The previous champion while it keeps a share after a full release."""
        return self.watch.previous if self.watch and self.watch.phase == "holdback" else None

    @property
    def holdback_share(self) -> float:
        """Chance that a unit first seen now gets the previous champion; 0 without a holdback."""
        return 1.0 - self.watch.share if self.watch and self.watch.phase == "holdback" else 0.0

    @property
    def shadow(self) -> str | None:
        """The version that answers a copy of requests, unseen."""
        return self.gated if self.shadow_share > 0 and self.watch is None else None

    @property
    def release_seq(self) -> int:
        """What an interaction routed now carries as its release."""
        return self.watch.release_seq if self.watch else self.champion_seq

    @property
    def pinned(self) -> frozenset[str]:
        """Versions that must stay loaded and stored: champion, previous, base, and those of an open watch."""
        names = {self.champion, self.previous, self.base, self.gated}
        if self.watch:
            names |= {self.watch.version, self.watch.previous}
        return frozenset(name for name in names if name)

    def paused_at(self, at: datetime) -> bool:
        """Check whether promotions by the nightly run are stopped at `at`."""
        return self.paused and (self.paused_until is None or at < self.paused_until)

    def fallback(self, bad: str | None = None) -> str:
        """Return where a rollback goes: the last champion before the live one that is not barred, else the base model.

        With nothing behind, that is the base model.

        Raises:
            RefusedTransition: nothing was ever live.
        """
        for name in reversed(self.champions[:-1]):
            if name not in self.barred and name != (bad or self.champion):
                return name
        if self.base is None:
            raise RefusedTransition(f"tenant {self.tenant!r} has no baseline to go back to; start with one")
        return self.base


def has_release(entries: Iterable[Entry]) -> bool:
    """Check whether one tenant's entries hold a release of its own; a baseline, or nights that were held, are none."""
    return any(entry.action in _RELEASES for entry in entries)
