"""Users in front of a tenant: dealt to arms by the gateway's own routing, their thumbs kept in the real store."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Engine

from deploy.gateway.routing.assign import assign, routing_table
from deploy.ledger.ledger import current
from feedback.events import Feedback, Interaction, Message, Routing, Thumb
from feedback.store.store import land_feedback, land_interactions
from infra.database.connect import begin_write, now


def serve(
    engine: Engine,
    users: int,
    satisfied: Mapping[str, float],
    *,
    tenant: str = "t",
    seed: int = 1,
    at: datetime | None = None,
    rating: Mapping[str, float] | None = None,
    astray: float = 0.0,
) -> dict[str, int]:
    """Answer and rate once for each of `users` new users; returns version -> users.

    Args:
        satisfied: version -> share of its users who give a thumb up.
        rating: version -> share of its users who rate at all; default: all of them.
        astray: share of users who are answered by the version under watch whatever routing says, as by a broken cache.
    """
    dice, at = random.Random(seed), at or now()
    table = routing_table(current(engine, tenant), base="none", lease_valid=True)
    interactions, thumbs = [], []
    counts: dict[str, int] = {}
    for number in range(users):
        unit = f"user {seed}-{number}"
        dealt = assign(table, unit)
        while dealt.arm == "champion" and dice.random() < astray:
            dealt = assign(table, f"{unit} {dice.random()}")
        counts[dealt.version] = counts.get(dealt.version, 0) + 1
        routing = Routing(release_seq=dealt.release_seq, arm=dealt.arm, unit=unit, probability=dealt.probability)
        interaction_id = f"i-{seed}-{number}"
        interactions.append(
            Interaction(
                interaction_id=interaction_id,
                tenant=tenant,
                user=unit,
                version=dealt.version,
                messages=(Message(role="user", content="hello"),),
                answer="hi",
                created_at=at,
                routing=routing,
            )
        )
        if rating is not None and dice.random() >= rating[dealt.version]:
            continue
        thumbs.append(
            Feedback(
                event_id=f"e-{seed}-{number}",
                tenant=tenant,
                interaction_id=interaction_id,
                actor=unit,
                kind="thumb",
                value=Thumb(up=dice.random() < satisfied[dealt.version]),
                created_at=at,
                source="gateway",
            )
        )
    with begin_write(engine) as connection:
        land_interactions(connection, interactions)
        land_feedback(connection, thumbs)
    return counts
