"""What the ledger's lines add up to, as a pure function: who is live, who is watched, who is barred.

A release goes gated, canary (once per step of its share), champion, then superseded or barred:

    baseline     the untouched base model becomes the first champion
    held         a night ended without a release; nothing moves
    gated        a version passed the gate (or a named person overrode it) and may open a canary
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
from typing import Any, Literal

from pydantic import Field

from infra.database import now
from infra.errors import UserError
from infra.settings import Config

Action = Literal[
    "baseline",
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


class RefusedTransition(UserError):
    """The line asked for does not follow from what stands."""


class Entry(Config):
    """One line of the ledger."""

    seq: int = 0
    """Place in the ledger, over all tenants; given by `append`. Order is by this, never by clocks."""
    tenant: str
    """Whose release it is."""
    tenant_seq: int = 0
    """Place among this tenant's lines, without gaps; given by `append`."""
    action: Action
    """What happened."""
    version: str
    """The version it happened to."""
    previous: str | None = None
    """champion: the version replaced. canary: the champion it is compared with. rolled_back: the version now live."""
    share: float | None = Field(default=None, ge=0, le=1)
    """canary: chance that a unit first seen from now on is answered by `version`. champion: the holdback's chance."""
    actor: str
    """Who or what did it: "night", "controller", "mlflow", or a person's name."""
    reason: str
    """Why, in one sentence."""
    evidence: Mapping[str, Any] = {}
    """What it rests on, as JSON. `night_id` makes a line happen once per night, `paused_until` ends a pause."""
    at: datetime = Field(default_factory=now)
    """When (UTC)."""

    @property
    def night_id(self) -> str | None:
        """The night this line belongs to, if it was written by one."""
        value = self.evidence.get("night_id")
        return str(value) if value is not None else None


class Watch(Config):
    """An open comparison of a new version with the one before it, on concurrently randomised units."""

    version: str
    """The version under watch (the treated arm)."""
    previous: str
    """The version it is compared with (the control arm)."""
    phase: Literal["canary", "holdback"]
    """canary: `previous` is champion. holdback: `version` is champion and `previous` keeps a small share."""
    opened_seq: int
    """The first canary line; it salts the hash that deals units to arms, in both phases, so nobody changes arms."""
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


class Standing(Config):
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
    watch: Watch | None = None
    """The open watch: at most one."""
    barred: Mapping[str, str] = {}
    """Barred version -> reason."""
    paused: bool = False
    """Whether promotions by the nightly run are stopped (see `paused_at`)."""
    paused_until: datetime | None = None
    """When the pause ends by itself; None: when a person resumes."""
    champions: tuple[str, ...] = ()
    """Champions in order, those taken back left out; the last is live. Where repeated rollbacks lead."""

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
        """Whether promotions by the nightly run are stopped at `at`."""
        return self.paused and (self.paused_until is None or at < self.paused_until)

    def fallback(self, bad: str | None = None) -> str:
        """Where a rollback goes: the last champion before the live one that is not barred, else the base model.

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


def standing(entries: Iterable[Entry], *, tenant: str = "default") -> Standing:
    """What one tenant's lines, in ledger order, add up to.

    Raises:
        RefusedTransition: a line does not follow from those before it.
    """
    result: Standing | None = None
    for entry in entries:
        result = apply(result or Standing(tenant=entry.tenant), entry)
    return result or Standing(tenant=tenant)


def apply(before: Standing, entry: Entry) -> Standing:
    """The standing after one more line.

    Raises:
        RefusedTransition: the line does not follow from `before`; says which would.
    """
    if entry.tenant != before.tenant:
        raise RefusedTransition(f"line of tenant {entry.tenant!r} in the ledger of {before.tenant!r}")
    if before.champion is None and entry.action not in ("baseline", "held"):
        raise RefusedTransition(
            f"{entry.action} of {entry.version}: tenant {entry.tenant!r} has no champion; write its baseline first"
        )
    changes = _RULES[entry.action](before, entry)
    return before.model_copy(update={**changes, "seq": entry.seq, "tenant_seq": before.tenant_seq + 1})


def _refuse(entry: Entry, why: str) -> RefusedTransition:
    return RefusedTransition(f"{entry.action} of {entry.version} for tenant {entry.tenant!r}: {why}")


def _baseline(before: Standing, entry: Entry) -> dict[str, Any]:
    if before.champion is not None:
        raise _refuse(entry, f"{before.champion} is champion already; a baseline comes first or never")
    return {
        "champion": entry.version,
        "champion_seq": entry.seq,
        "since": entry.at,
        "base": entry.version,
        "champions": (entry.version,),
    }


def _nothing(before: Standing, entry: Entry) -> dict[str, Any]:
    return {}


def _gated(before: Standing, entry: Entry) -> dict[str, Any]:
    _may_release(before, entry)
    if before.watch is not None:
        raise _refuse(entry, f"{before.watch.version} is under watch; one watch at a time, so this night is held")
    return {"gated": entry.version}


def _canary(before: Standing, entry: Entry) -> dict[str, Any]:
    if entry.share is None or not 0 < entry.share < 1:
        raise _refuse(entry, f"share {entry.share} must lie between 0 and 1, both arms need units")
    watch = before.watch
    if watch is None:
        _may_release(before, entry)
        if before.gated != entry.version:
            raise _refuse(entry, f"not gated (gated is {before.gated}); gate it first")
        assert before.champion is not None
        opened = Watch(
            version=entry.version,
            previous=before.champion,
            phase="canary",
            opened_seq=entry.seq,
            opened_at=entry.at,
            step=0,
            step_seq=entry.seq,
            step_at=entry.at,
            share=entry.share,
            shares=((entry.seq, entry.share),),
        )
        return {"watch": opened, "gated": None}
    if watch.phase != "canary" or watch.version != entry.version:
        raise _refuse(entry, f"{watch.version} is under watch ({watch.phase})")
    if entry.share <= watch.share:
        raise _refuse(entry, f"share {entry.share} is not above {watch.share}; steps go up, to go down roll back")
    stepped = watch.model_copy(
        update={
            "step": watch.step + 1,
            "step_seq": entry.seq,
            "step_at": entry.at,
            "share": entry.share,
            "shares": (*watch.shares, (entry.seq, entry.share)),
        }
    )
    return {"watch": stepped}


def _champion(before: Standing, entry: Entry) -> dict[str, Any]:
    watch = before.watch
    if watch is None or watch.phase != "canary" or watch.version != entry.version:
        raise _refuse(entry, "it is not the open canary; the champion moves only from a canary")
    held_back = entry.share or 0.0
    promoted: Watch | None = None
    if held_back > 0:
        share = 1.0 - held_back
        promoted = watch.model_copy(
            update={
                "phase": "holdback",
                "champion_seq": entry.seq,
                "step": watch.step + 1,
                "step_seq": entry.seq,
                "step_at": entry.at,
                "share": share,
                "shares": (*watch.shares, (entry.seq, share)),
            }
        )
    return {
        "champion": entry.version,
        "champion_seq": entry.seq,
        "since": entry.at,
        "previous": before.champion,
        "watch": promoted,
        "champions": (*before.champions, entry.version),
    }


def _superseded(before: Standing, entry: Entry) -> dict[str, Any]:
    watch = before.watch
    if watch is None or watch.phase != "holdback" or watch.previous != entry.version:
        raise _refuse(entry, f"it is not held back (held back is {before.holdback})")
    return {"watch": None}


def _withdrawn(before: Standing, entry: Entry) -> dict[str, Any]:
    if before.gated == entry.version:
        return {"gated": None}
    if before.canary == entry.version:
        return {"watch": None}
    raise _refuse(entry, "it is neither gated nor the open canary")


def _rolled_back(before: Standing, entry: Entry) -> dict[str, Any]:
    if entry.version == before.base:
        raise _refuse(entry, "the base model is the last resort and cannot be taken back")
    if entry.previous is None or entry.previous == entry.version or entry.previous in before.barred:
        raise _refuse(
            entry, f"cannot go back to {entry.previous}; name a version that is not barred, or the base model"
        )
    changes: dict[str, Any] = {
        "barred": {**before.barred, entry.version: entry.reason},
        "paused": True,
        "paused_until": paused_until(entry),
        "gated": None if before.gated == entry.version else before.gated,
    }
    if before.canary == entry.version:
        if entry.previous != before.champion:
            raise _refuse(entry, f"a canary goes back to the champion {before.champion}, not to {entry.previous}")
        return {**changes, "watch": None}
    if before.champion != entry.version:
        raise _refuse(entry, f"it is not live (live is {before.champion}, canary {before.canary})")
    known = (*before.champions, before.base)
    if entry.previous not in known:
        raise _refuse(entry, f"{entry.previous} was never champion; release it through a canary instead")
    kept = list(before.champions)
    while kept and kept[-1] != entry.previous:
        kept.pop()
    kept = kept or [entry.previous]
    return {
        **changes,
        "champion": entry.previous,
        "champion_seq": entry.seq,
        "since": entry.at,
        "previous": kept[-2] if len(kept) > 1 else None,
        "champions": tuple(kept),
        # The live champion went back: what was being compared with it has nothing to be compared with.
        "watch": None,
    }


def _barred(before: Standing, entry: Entry) -> dict[str, Any]:
    if entry.version == before.base:
        raise _refuse(entry, "the base model is the last resort and cannot be barred")
    if entry.version in (before.champion, before.canary):
        raise _refuse(entry, "it is live; roll it back, which bars it too")
    changes: dict[str, Any] = {"barred": {**before.barred, entry.version: entry.reason}}
    if before.gated == entry.version:
        changes["gated"] = None
    if before.holdback == entry.version:
        changes["watch"] = None
    return changes


def _unbarred(before: Standing, entry: Entry) -> dict[str, Any]:
    if entry.version not in before.barred:
        raise _refuse(entry, f"it is not barred (barred: {', '.join(before.barred) or 'none'})")
    return {"barred": {name: why for name, why in before.barred.items() if name != entry.version}}


def _paused(before: Standing, entry: Entry) -> dict[str, Any]:
    return {"paused": True, "paused_until": paused_until(entry)}


def _resumed(before: Standing, entry: Entry) -> dict[str, Any]:
    if not before.paused:
        raise _refuse(entry, "promotions are not paused")
    return {"paused": False, "paused_until": None}


def _may_release(before: Standing, entry: Entry) -> None:
    if entry.version in before.barred:
        raise _refuse(entry, f"barred ({before.barred[entry.version]}); lift the bar first")
    if entry.version == before.champion:
        raise _refuse(entry, "these weights are the champion's own; there is nothing to release")


def paused_until(entry: Entry) -> datetime | None:
    """When the pause that this line starts ends by itself; None: when a person resumes."""
    value = entry.evidence.get("paused_until")
    return datetime.fromisoformat(value) if value else None


_RULES = {
    "baseline": _baseline,
    "held": _nothing,
    "gated": _gated,
    "canary": _canary,
    "champion": _champion,
    "superseded": _superseded,
    "withdrawn": _withdrawn,
    "rolled_back": _rolled_back,
    "barred": _barred,
    "unbarred": _unbarred,
    "paused": _paused,
    "resumed": _resumed,
}
