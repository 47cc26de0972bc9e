"""Every SQL table there is, by the module that owns it.

A table is declared in its owner's file and named here; how it comes into a database, and how one of an earlier release
becomes like it, is a revision's business (infra/database/migrations). Tests compare the three.
"""

from __future__ import annotations

from sqlalchemy import MetaData, Table

from deploy import (
    arena,
    blind_judge,
    controller,
    keys,
    lease,
    ledger,
    registry,
    registry_hook,
    rescore,
    shadow,
    watching,
)
from evaluation.run import noise_floors
from feedback.lake import quarantine
from feedback.sources import landing
from feedback.store import tables, tombstones, user_salt
from infra.alerts import outbox
from infra.database.connect import metadata

TABLES: tuple[Table, ...] = (
    outbox.deliveries,
    outbox.outbox,
    arena.arena_pairs,
    blind_judge.bar_judgements,
    controller.heartbeats,
    tombstones.forgotten,
    tombstones.forgotten_interactions,
    keys.api_keys,
    landing.source_marks,
    landing.source_rejects,
    lease.leases,
    ledger.releases,
    noise_floors.noise_floors,
    quarantine.quarantine_decisions,
    quarantine.quarantine_releases,
    registry.written_aliases,
    registry_hook.knocks,
    rescore.rescores,
    user_salt.salt_marks,
    shadow.shadow_answers,
    tables.feedback,
    tables.feedback_ready,
    tables.interactions,
    watching.watch_states,
)


def declared() -> MetaData:
    """The tables as this release's code knows them."""
    return metadata
