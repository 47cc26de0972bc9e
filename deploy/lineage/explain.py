"""Explain one served answer: version, recipe, data, gate, and the release by which it was routed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Engine

from deploy.ledger.ledger import Entry, history
from deploy.versions.versions import load_version
from evaluation.gate.likeness import Likeness
from feedback.events import Interaction
from feedback.store.store import Store
from infra.artifact import Record
from infra.errors import NotFound, RatchetError
from infra.settings import Config


class Explanation(Config):
    """Why an answer was what it was."""

    interaction_id: str
    """The answer."""
    tenant: str
    """Whose it is."""
    at: str
    """When it was given (UTC)."""
    version: str
    """The version that gave it."""
    arm: str | None
    """The side of a comparison it was on; None outside the gateway's routing."""
    probability: float | None
    """The chance with which its user got that side."""
    release: Entry | None
    """The ledger line whose routing it followed; None for a pinned answer, or one of an endpoint outside."""
    gated: Entry | None
    """The line that let the version in: its gate verdict, or the person who overrode it. None for the base."""
    lines: tuple[Entry, ...]
    """All ledger lines about the version."""
    record: Record | None
    """What made its weights: recipe, parents (base, snapshot, earlier stage), results. None where they are not here."""
    missing: str | None
    """Why there is no record."""
    feedback: int
    """How many things people said of this answer."""
    like_barred: Likeness | None = None
    """The barred version it behaved most like when it was released."""

    @property
    def recipe(self) -> object:
        """The recipe in its record, else what config the record holds."""
        config = dict(self.record.config) if self.record else {}
        return config.get("recipe") or config.get("stage") or config


def explain(database: Engine, versions_dir: Path, tenant: str, interaction_id: str, *, shared: str) -> Explanation:
    """Collect everything that is known of one answer.

    Args:
        shared: the tenant whose champion serves tenants without releases of their own.

    Raises:
        NotFound: the tenant has no such interaction.
    """
    store = Store(database)
    interaction = store.interaction(tenant, interaction_id)
    if interaction is None:
        raise NotFound(
            f"tenant {tenant!r} has no interaction {interaction_id!r}; it is the id that came with the answer, "
            "and answers given while the database was away land when it is back"
        )
    entries = history(database, tenant)
    if not _explains(entries, interaction):
        entries = history(database, shared)  # the answer is from before the tenant's first release
    own = [entry for entry in entries if entry.version == interaction.version]
    gated = _last(entry for entry in own if entry.action == "gated" and _stood_before(entry, interaction))
    record, missing = _record(versions_dir, interaction)
    like = _last(entry for entry in own if entry.evidence.like_barred)
    return Explanation(
        interaction_id=interaction_id,
        tenant=tenant,
        at=f"{interaction.created_at:%Y-%m-%d %H:%M:%S}",
        version=interaction.version,
        arm=interaction.routing.arm if interaction.routing else None,
        probability=interaction.routing.probability if interaction.routing else None,
        release=_release(entries, interaction),
        gated=gated,
        lines=tuple(own),
        record=record,
        missing=missing,
        feedback=len(store.feedback_for(tenant, interaction_id)),
        like_barred=like.evidence.like_barred if like else None,
    )


def _explains(entries: Iterable[Entry], interaction: Interaction) -> bool:
    seq = interaction.routing.release_seq if interaction.routing else 0
    return any(entry.seq == seq or (seq == 0 and entry.version == interaction.version) for entry in entries)


def _stood_before(entry: Entry, interaction: Interaction) -> bool:
    """Whether a line stood when the answer was given: by the ledger's order; by clocks for answers outside of it."""
    seq = interaction.routing.release_seq if interaction.routing else 0
    return entry.seq <= seq if seq else entry.at <= interaction.created_at


def _release(entries: Iterable[Entry], interaction: Interaction) -> Entry | None:
    seq = interaction.routing.release_seq if interaction.routing else 0
    return next((entry for entry in entries if entry.seq == seq), None)


def _record(versions_dir: Path, interaction: Interaction) -> tuple[Record | None, str | None]:
    try:
        return load_version(versions_dir, interaction.version, check=False).record, None
    except RatchetError as error:
        if interaction.version.startswith("base-"):
            return None, "it is the untouched base model"
        if interaction.version.startswith("upstream:"):
            return None, "it is an endpoint outside of Ratchet"
        return None, str(error)


def _last(entries: Iterable[Entry]) -> Entry | None:
    found = list(entries)
    return found[-1] if found else None
