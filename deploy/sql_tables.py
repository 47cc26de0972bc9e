"""Every SQL table there is, by the module that owns it.

A table is declared in its owner's file and named here; how it comes into a database, and how one of an earlier release
becomes like it, is a revision's business (infra/database/migrations). Tests compare the three.
"""

from __future__ import annotations

from sqlalchemy import MetaData, Table

from deploy import api_keys
from deploy.canary import rescore
from deploy.controller import canary_watch, rollback_review, run
from deploy.experiments import arena, shadow
from deploy.ledger import lease, ledger
from deploy.registry import aliases, webhook
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
    rollback_review.bar_judgements,
    run.heartbeats,
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
    webhook.knocks,
    rescore.rescores,
    user_salt.salt_marks,
    shadow.shadow_answers,
    tables.feedback,
    tables.feedback_ready,
    tables.interactions,
    canary_watch.watch_states,
)


def declared() -> MetaData:
    """The tables as this release's code knows them."""
    return metadata
