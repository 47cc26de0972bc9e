"""Assign units to arms: one routing table per tenant, a pure function of its release state.

Units are assigned to arms by a hash seeded with the entry that opened the watch, so the same unit gets the same arm on
every gateway and in every phase. A higher share applies to units first seen after the step: who knows an earlier
assignment of a unit passes it on (see deploy/gateway/routing/sticky.py).
"""

from __future__ import annotations

import hashlib
from typing import Literal

from deploy.ledger.state import ReleaseState
from feedback.events import Arm
from infra.settings import Config


class Assignment(Config):
    """Who answers one unit, and how that was decided."""

    version: str
    """The version that answers."""
    arm: Arm
    """The side of the comparison."""
    probability: float
    """The chance that this unit got this arm."""
    release_seq: int
    """The ledger line whose randomisation this is; 0 when the answer takes part in no release."""


class RoutingTable(Config):
    """Everything needed to route one tenant's requests."""

    tenant: str
    """Whose requests."""
    seq: int = 0
    """The ledger line this follows; later lines make another table."""
    champion: str
    """Answers everybody outside a watch."""
    champion_seq: int = 0
    """The line that made it champion."""
    phase: Literal["canary", "holdback"] | None = None
    """The open watch, if its lease is alive."""
    challenger: str | None = None
    """The version under watch."""
    control: str | None = None
    """The version it is compared with."""
    share: float = 0.0
    """Chance that a unit first seen now is answered by the version under watch."""
    hash_seed: int = 0
    """The entry that opened the watch."""
    release_seq: int = 0
    """What the interactions of the watch carry."""
    stepped: bool = False
    """Whether the share has been another one during this phase: then what a unit got before counts."""
    shadow: str | None = None
    """The version that answers a copy of requests, unseen."""
    shadow_share: float = 0.0
    """Share of requests that are copied to it."""
    lease_lost: bool = False
    """Whether a watch is open in the ledger that nobody watches: everyone gets the champion."""

    @property
    def versions(self) -> tuple[str, ...]:
        """Versions that requests may be routed to."""
        return tuple(dict.fromkeys(name for name in (self.champion, self.challenger, self.control) if name))

    @property
    def wanted(self) -> tuple[str, ...]:
        """Versions that an engine should hold loaded: those, and the one in shadow."""
        return tuple(dict.fromkeys((*self.versions, *([self.shadow] if self.shadow else []))))


def routing_table(state: ReleaseState, *, base: str, lease_valid: bool) -> RoutingTable:
    """Make the routing table of one tenant.

    Args:
        base: version name of the untouched base, for a tenant whose ledger is empty.
        lease_valid: whether the controller watches (deploy/ledger/lease.py); without it an open watch routes nobody.
    """
    plain = RoutingTable(
        tenant=state.tenant,
        seq=state.seq,
        champion=state.champion or base,
        champion_seq=state.champion_seq,
        shadow=state.shadow,
        shadow_share=state.shadow_share if state.shadow else 0.0,
    )
    watch = state.watch
    if watch is None:
        return plain
    if not lease_valid:
        return plain.model_copy(update={"lease_lost": True, "phase": None})
    return plain.model_copy(
        update={
            "phase": watch.phase,
            "challenger": watch.version,
            "control": watch.previous,
            "share": watch.share,
            "hash_seed": watch.opened_seq,
            "release_seq": watch.release_seq,
            # Promotion assigns everybody anew by the same hash: only the holdback's share stays behind.
            "stepped": watch.phase == "canary" and len(watch.shares) > 1,
        }
    )


def position(table: RoutingTable, unit: str) -> float:
    """Hash a unit to its place in [0, 1): uniform over units, the same for the whole watch."""
    digest = hashlib.sha256(f"{table.tenant}\0{table.hash_seed}\0{unit}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def assign(table: RoutingTable, unit: str) -> Assignment:
    """Assign a unit first seen now to its arm."""
    if table.phase is None or table.challenger is None or table.control is None:
        # While nobody watches, answers are no part of the watch's comparison, whatever line made the champion.
        return Assignment(
            version=table.champion,
            arm="champion",
            probability=1.0,
            release_seq=0 if table.lease_lost else table.champion_seq,
        )
    treated = position(table, unit) < table.share
    arms: tuple[Arm, Arm] = ("canary", "champion") if table.phase == "canary" else ("champion", "holdback")
    return Assignment(
        version=table.challenger if treated else table.control,
        arm=arms[0] if treated else arms[1],
        probability=table.share if treated else 1.0 - table.share,
        release_seq=table.release_seq,
    )


def keep(table: RoutingTable, arm: str, probability: float) -> Assignment | None:
    """Repeat the assignment of a unit that had `arm` earlier in this phase; None when that arm is closed now."""
    arms = {"canary": {"canary": table.challenger, "champion": table.control}}.get(table.phase or "", {})
    version = arms.get(arm)
    if version is None:
        return None
    return Assignment.model_validate(
        {"version": version, "arm": arm, "probability": probability, "release_seq": table.release_seq}
    )
