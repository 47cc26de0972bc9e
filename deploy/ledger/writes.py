"""Write ledger entries and the alert that tells people in one transaction; decide anew when the race was lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from deploy.ledger.ledger import Entry, ReleaseState, append_in, current
from infra.alerts.outbox import Alert, Severity, enqueue
from infra.database.connect import begin_write
from infra.errors import Conflict

T = TypeVar("T")


def entry_alert(
    entry: Entry, kind: str, severity: Severity, title: str, *, text: str = "", next_step: str = "`ratchet status`"
) -> Alert:
    """Make the alert of an entry; a night alerts of the same thing once."""
    facts = entry.model_dump(mode="json", exclude={"seq", "tenant_seq"})
    return Alert(
        kind=kind,
        severity=severity,
        tenant=entry.tenant,
        title=title,
        text=text,
        next_step=next_step,
        payload=facts,
        dedupe_key=f"{entry.tenant}/{kind}/{entry.night_id}" if entry.night_id else None,
    )


def write(database: Engine, entries: Sequence[Entry], expected_seq: int, alert: Alert) -> Entry:
    """Write all entries and the alert, or none; returns the last entry."""
    try:
        with begin_write(database) as connection:
            written = entries[0]
            for entry in entries:
                written = append_in(connection, entry, expected_seq)
                expected_seq = written.seq
            enqueue(connection, alert.model_copy(update={"payload": {**alert.payload, "seq": written.seq}}))
            return written
    except IntegrityError as error:
        raise Conflict(
            f"{entries[-1].action} of {entries[-1].version}: another line came first; read the ledger again"
        ) from error


def retry(database: Engine, tenant: str, attempt: Callable[[ReleaseState], T]) -> T:
    """Decide on what stands and write; decide anew when somebody else wrote first."""
    for _ in range(20):
        try:
            return attempt(current(database, tenant))
        except Conflict as error:
            lost = error
    raise lost
