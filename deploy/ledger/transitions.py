"""How one line of the ledger follows from what stands: pure functions, one rule per action."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from deploy.ledger.state import Entry, NotNow, RefusedTransition, Standing, UnknownAction, Watch


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
    if entry.action not in _RULES:
        raise UnknownAction(
            f"line {entry.seq} of tenant {entry.tenant!r} is {entry.action!r}, which this release of Ratchet does not "
            f"know ({entry.reason[:200]}); use the release that wrote it"
        )
    try:
        changes = _RULES[entry.action](before, entry)
    except (ValueError, TypeError, LookupError) as error:
        raise _refuse(entry, f"its evidence cannot be read ({error})") from error
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


def _inherited(before: Standing, entry: Entry) -> dict[str, Any]:
    if before.own_champion:
        raise _refuse(entry, f"it has a champion of its own, {before.champion}; the shared one no longer concerns it")
    if before.watch is not None:
        raise _refuse(entry, f"{before.watch.version} is under watch; what it is compared with stays as it is")
    if entry.version in before.barred:
        raise _refuse(entry, f"it is barred here ({before.barred[entry.version]})")
    return {
        "champion": entry.version,
        "champion_seq": entry.seq,
        "since": entry.at,
        "previous": None,
        "champions": tuple(dict.fromkeys(name for name in (before.base, entry.version) if name)),
    }


def _nothing(before: Standing, entry: Entry) -> dict[str, Any]:
    return {}


def _gated(before: Standing, entry: Entry) -> dict[str, Any]:
    _may_release(before, entry)
    if before.watch is not None:
        why = f"{before.watch.version} is under watch; one watch at a time, so it waits"
        raise NotNow(str(_refuse(entry, why)))
    return {
        "gated": entry.version,
        "gated_seq": entry.seq,
        "gated_at": entry.at,
        "shadow_share": entry.share or 0.0,
    }


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
        "own_champion": True,
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
    "inherited": _inherited,
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
