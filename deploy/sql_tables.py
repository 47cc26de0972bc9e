"""List every SQL table, by the module that owns it.

A table is declared in its owner's file and named here; how it comes into a database, and how one of an earlier release
becomes like it, is a revision's business (infra/database/migrations). Tests compare the three.
"""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, String, Table

from deploy import api_keys
from deploy.canary import last_assessment, rescore
from deploy.controller import heartbeat, rollback_review
from deploy.experiments import arena, shadow
from deploy.ledger import lease, ledger
from deploy.registry import aliases
from evaluation.run import noise_floors
from feedback.lake import quarantine
from feedback.sources import landing
from feedback.store import tables, tombstones, user_salt
from infra.alerts import outbox
from infra.database.connect import metadata

# Counted the deliveries of MLflow's webhook. Nothing uses it any more, but release 0.1.0 does, and one may go back to
# it: the release after this one drops it.
registry_knocks = Table(
    "registry_knocks",
    metadata,
    Column("name", String(60), primary_key=True),
    Column("count", Integer, nullable=False),
)

TABLES: tuple[Table, ...] = (
    outbox.deliveries,
    outbox.outbox,
    arena.arena_pairs,
    rollback_review.bar_judgements,
    heartbeat.heartbeats,
    tombstones.forgotten,
    tombstones.forgotten_interactions,
    api_keys.api_keys,
    landing.source_marks,
    landing.source_rejects,
    lease.leases,
    ledger.releases,
    noise_floors.noise_floors,
    quarantine.quarantine_decisions,
    quarantine.quarantine_releases,
    aliases.written_aliases,
    registry_knocks,
    rescore.rescores,
    user_salt.salt_marks,
    shadow.shadow_answers,
    tables.feedback,
    tables.feedback_ready,
    tables.interactions,
    last_assessment.watch_states,
)


def declared() -> MetaData:
    """Return the tables as this release's code knows them."""
    return metadata
