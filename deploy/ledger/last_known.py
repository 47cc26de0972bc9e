"""Fold a tenant's entries as far as this release can read them: for those who route, and must go on.

Who decides on a ledger reads it strictly (`deploy.ledger.transitions.release_state`): an entry that does not follow, or
that a newer release wrote, refuses every decision. Who routes has users waiting: they get the last champion that is
known, nobody is compared, and a version that any entry takes back answers nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

from deploy.ledger.state import Entry, RefusedTransition, ReleaseState, UnknownAction
from deploy.ledger.transitions import apply


def last_known(entries: Iterable[Entry], *, tenant: str) -> ReleaseState:
    """Fold one tenant's entries, in ledger order, without those that cannot be followed.

    With such an entry the watch is closed and nothing is in shadow, whatever other entries say; `unread` says which.
    """
    result, unread = ReleaseState(tenant=tenant), None
    for entry in entries:
        try:
            result = apply(result, entry)
        except RefusedTransition as refused:
            unread = unread or (str(refused) if isinstance(refused, UnknownAction) else f"line {entry.seq}: {refused}")
            result = _skip(result, entry)
    return result if unread is None else closed(result, unread)


def closed(state: ReleaseState, why: str) -> ReleaseState:
    """Return the same champion with nobody compared with it, because of what could not be read."""
    return state.model_copy(update={"watch": None, "gated": None, "gated_at": None, "shadow_share": 0.0, "unread": why})


def _skip(state: ReleaseState, entry: Entry) -> ReleaseState:
    passed = state.model_copy(update={"seq": entry.seq, "tenant_seq": state.tenant_seq + 1})
    taken_back = entry.action in ("rolled_back", "barred") and entry.version not in ("", state.base)
    if not taken_back:
        return passed
    barred = {**state.barred, entry.version: entry.reason}
    watched = state.watch is not None and entry.version == state.watch.version
    if entry.version != state.champion:
        return passed.model_copy(update={"barred": barred, **({"watch": None} if watched else {})})
    kept = tuple(name for name in state.champions[:-1] if name not in barred) or tuple(filter(None, (state.base,)))
    return passed.model_copy(
        update={
            "barred": barred,
            "champion": kept[-1] if kept else None,
            "champion_seq": entry.seq,
            "since": entry.at,
            "previous": kept[-2] if len(kept) > 1 else None,
            "champions": kept,
            "watch": None,
        }
    )
