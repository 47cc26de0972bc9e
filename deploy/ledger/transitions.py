"""Fold the ledger into a release state: pure functions, one rule per action."""

from __future__ import annotations

from collections.abc import Iterable

from deploy.ledger.state import Entry, RefusedTransition, ReleaseState, TemporarilyBlocked, UnknownAction, Watch


def release_state(entries: Iterable[Entry], *, tenant: str = "default") -> ReleaseState:
    """Fold one tenant's entries, in ledger order, into its release state.

    Raises:
        RefusedTransition: a line does not follow from those before it.
    """
    result: ReleaseState | None = None
    for entry in entries:
        result = apply(result or ReleaseState(tenant=entry.tenant), entry)
    return result or ReleaseState(tenant=tenant)


def apply(state: ReleaseState, entry: Entry) -> ReleaseState:
    """Return the state after one more entry.

    Raises:
        RefusedTransition: the line does not follow from `state`; says which would.
    """
    if entry.tenant != state.tenant:
        raise RefusedTransition(f"line of tenant {entry.tenant!r} in the ledger of {state.tenant!r}")
    if state.champion is None and entry.action not in ("baseline", "held"):
        raise RefusedTransition(
            f"{entry.action} of {entry.version}: tenant {entry.tenant!r} has no champion; write its baseline first"
        )
    if entry.action not in _RULES:
        raise UnknownAction(
            f"line {entry.seq} of tenant {entry.tenant!r} is {entry.action!r}, which this release of Ratchet does not "
            f"know ({entry.reason[:200]}); use the release that wrote it"
        )
    after = _RULES[entry.action](state, entry)
    return after.model_copy(update={"seq": entry.seq, "tenant_seq": state.tenant_seq + 1})


def _refuse(entry: Entry, why: str) -> RefusedTransition:
    return RefusedTransition(f"{entry.action} of {entry.version} for tenant {entry.tenant!r}: {why}")


def _baseline(state: ReleaseState, entry: Entry) -> ReleaseState:
    if state.champion is not None:
        raise _refuse(entry, f"{state.champion} is champion already; a baseline comes first or never")
    return state.model_copy(
        update={
            "champion": entry.version,
            "champion_seq": entry.seq,
            "since": entry.at,
            "base": entry.version,
            "champions": (entry.version,),
        }
    )


def _inherited(state: ReleaseState, entry: Entry) -> ReleaseState:
    if state.own_champion:
        raise _refuse(entry, f"it has a champion of its own, {state.champion}; the shared one no longer concerns it")
    if state.watch is not None:
        raise _refuse(entry, f"{state.watch.version} is under watch; what it is compared with stays as it is")
    if entry.version in state.barred:
        raise _refuse(entry, f"it is barred here ({state.barred[entry.version]})")
    return state.model_copy(
        update={
            "champion": entry.version,
            "champion_seq": entry.seq,
            "since": entry.at,
            "previous": None,
            "champions": tuple(dict.fromkeys(name for name in (state.base, entry.version) if name)),
        }
    )


def _nothing(state: ReleaseState, entry: Entry) -> ReleaseState:
    return state


def _gated(state: ReleaseState, entry: Entry) -> ReleaseState:
    _may_release(state, entry)
    if state.watch is not None:
        why = f"{state.watch.version} is under watch; one watch at a time, so it waits"
        raise TemporarilyBlocked(str(_refuse(entry, why)))
    return state.model_copy(
        update={
            "gated": entry.version,
            "gated_seq": entry.seq,
            "gated_at": entry.at,
            "shadow_share": entry.share or 0.0,
        }
    )


def _canary(state: ReleaseState, entry: Entry) -> ReleaseState:
    if entry.share is None or not 0 < entry.share < 1:
        raise _refuse(entry, f"share {entry.share} must lie between 0 and 1, both arms need units")
    watch = state.watch
    if watch is None:
        _may_release(state, entry)
        if state.gated != entry.version:
            raise _refuse(entry, f"not gated (gated is {state.gated}); gate it first")
        assert state.champion is not None
        opened = Watch(
            version=entry.version,
            previous=state.champion,
            phase="canary",
            opened_seq=entry.seq,
            opened_at=entry.at,
            step=0,
            step_seq=entry.seq,
            step_at=entry.at,
            share=entry.share,
            shares=((entry.seq, entry.share),),
        )
        return state.model_copy(update={"watch": opened, "gated": None})
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
    return state.model_copy(update={"watch": stepped})


def _champion(state: ReleaseState, entry: Entry) -> ReleaseState:
    watch = state.watch
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
    return state.model_copy(
        update={
            "champion": entry.version,
            "champion_seq": entry.seq,
            "since": entry.at,
            "previous": state.champion,
            "own_champion": True,
            "watch": promoted,
            "champions": (*state.champions, entry.version),
        }
    )


def _superseded(state: ReleaseState, entry: Entry) -> ReleaseState:
    watch = state.watch
    if watch is None or watch.phase != "holdback" or watch.previous != entry.version:
        raise _refuse(entry, f"it is not held back (held back is {state.holdback})")
    return state.model_copy(update={"watch": None})


def _withdrawn(state: ReleaseState, entry: Entry) -> ReleaseState:
    if state.gated == entry.version:
        return state.model_copy(update={"gated": None})
    if state.canary == entry.version:
        return state.model_copy(update={"watch": None})
    raise _refuse(entry, "it is neither gated nor the open canary")


def _rolled_back(state: ReleaseState, entry: Entry) -> ReleaseState:
    if entry.version == state.base:
        raise _refuse(entry, "the base model is the last resort and cannot be taken back")
    if entry.previous is None or entry.previous == entry.version or entry.previous in state.barred:
        raise _refuse(
            entry, f"cannot go back to {entry.previous}; name a version that is not barred, or the base model"
        )
    taken_back = state.model_copy(
        update={
            "barred": {**state.barred, entry.version: entry.reason},
            "paused": True,
            "paused_until": entry.evidence.paused_until,
            "gated": None if state.gated == entry.version else state.gated,
            # Where the live champion went back, what was being compared with it has nothing to be compared with.
            "watch": None,
        }
    )
    if state.canary == entry.version:
        if entry.previous != state.champion:
            raise _refuse(entry, f"a canary goes back to the champion {state.champion}, not to {entry.previous}")
        return taken_back
    if state.champion != entry.version:
        raise _refuse(entry, f"it is not live (live is {state.champion}, canary {state.canary})")
    if entry.previous not in (*state.champions, state.base):
        raise _refuse(entry, f"{entry.previous} was never champion; release it through a canary instead")
    kept = list(state.champions)
    while kept and kept[-1] != entry.previous:
        kept.pop()
    kept = kept or [entry.previous]
    return taken_back.model_copy(
        update={
            "champion": entry.previous,
            "champion_seq": entry.seq,
            "since": entry.at,
            "previous": kept[-2] if len(kept) > 1 else None,
            "champions": tuple(kept),
        }
    )


def _barred(state: ReleaseState, entry: Entry) -> ReleaseState:
    if entry.version == state.base:
        raise _refuse(entry, "the base model is the last resort and cannot be barred")
    if entry.version in (state.champion, state.canary):
        raise _refuse(entry, "it is live; roll it back, which bars it too")
    return state.model_copy(
        update={
            "barred": {**state.barred, entry.version: entry.reason},
            "gated": None if state.gated == entry.version else state.gated,
            "watch": None if state.holdback == entry.version else state.watch,
        }
    )


def _unbarred(state: ReleaseState, entry: Entry) -> ReleaseState:
    if entry.version not in state.barred:
        raise _refuse(entry, f"it is not barred (barred: {', '.join(state.barred) or 'none'})")
    return state.model_copy(
        update={"barred": {name: why for name, why in state.barred.items() if name != entry.version}}
    )


def _paused(state: ReleaseState, entry: Entry) -> ReleaseState:
    return state.model_copy(update={"paused": True, "paused_until": entry.evidence.paused_until})


def _resumed(state: ReleaseState, entry: Entry) -> ReleaseState:
    if not state.paused:
        raise _refuse(entry, "promotions are not paused")
    return state.model_copy(update={"paused": False, "paused_until": None})


def _may_release(state: ReleaseState, entry: Entry) -> None:
    if entry.version in state.barred:
        raise _refuse(entry, f"barred ({state.barred[entry.version]}); lift the bar first")
    if entry.version == state.champion:
        raise _refuse(entry, "these weights are the champion's own; there is nothing to release")


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
