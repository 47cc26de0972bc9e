"""Cache on disk what a gateway needs to start without a database: routing, keys' hashes, and whose salt it is.

One file, `last-known.json` in the spool's folder, for its owner alone. No key stands in it (only SHA-256 of 256 random
bits), and of releases only what the ledger says. A key that was revoked since it was written is believed for
`serving.offline_keys_seconds` after the database was last asked: nobody can know of it meanwhile.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from deploy.api_keys import ApiKey
from deploy.gateway.routing.ledger_view import LedgerView
from deploy.ledger.state import ReleaseState
from infra.settings import Config

log = logging.getLogger(__name__)
NAME = "last-known.json"


class OfflineState(Config):
    """The file."""

    database: str
    """Fingerprint of the database's URL without its password: another database's keys and releases are not ours."""
    salt_mark: str
    """What the salt makes of a constant (`feedback.store.user_salt`)."""
    standings: tuple[ReleaseState, ...] = ()
    """What each tenant's lines added up to."""
    named: Mapping[str, tuple[str, ...]] = {}
    """Tenant -> versions that its lines name."""
    released: tuple[str, ...] = ()
    """Tenants with a release of their own."""
    keys: Mapping[str, ApiKey] = {}
    """SHA-256 of a key -> what is known of it."""
    keys_at: float = 0.0
    """When the keys were read, in seconds since 1970."""

    @property
    def view(self) -> LedgerView:
        """As routing takes it; leases are not kept, so every open watch routes to its champion."""
        return LedgerView(
            states={known.tenant: known for known in self.standings},
            named={tenant: frozenset(names) for tenant, names in self.named.items()},
            released=frozenset(self.released),
        )


class OfflineCache:
    """Reads and writes the file; a part that is new is written with the other parts as they were."""

    def __init__(self, folder: Path, *, database: str, salt_mark: str) -> None:
        self._file = folder / NAME
        self._database, self._salt_mark = database, salt_mark
        self._now = OfflineState(database=database, salt_mark=salt_mark)
        self._writing = threading.Lock()

    def read(self) -> OfflineState | None:
        """Read what an earlier process kept; None where that is nothing, or of another database or salt."""
        try:
            found = OfflineState.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.error("%s cannot be read, so this gateway needs its database to start: %s", self._file, error)
            return None
        if (found.database, found.salt_mark) != (self._database, self._salt_mark):
            log.warning("%s is of another database or salt and is not used", self._file)
            return None
        self._now = found
        return found

    def keep_view(self, view: LedgerView) -> None:
        """Keep what routing rests on."""
        self._write(
            standings=tuple(view.states.values()),
            named={tenant: tuple(sorted(names)) for tenant, names in view.named.items()},
            released=tuple(sorted(view.released)),
        )

    def keep_keys(self, keys: Mapping[str, ApiKey]) -> None:
        """Keep the keys that are valid now; the same ones again only once a minute."""
        if keys != self._now.keys or time.time() - self._now.keys_at > 60.0:
            self._write(keys=keys, keys_at=time.time())

    def _write(self, **parts: object) -> None:
        with self._writing:
            self._now = self._now.model_copy(update=parts)
            self._replace()

    def _replace(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        staging = self._file.with_name(f".{NAME}.{uuid.uuid4().hex}.tmp")
        # Never readable to others, not even while it is written.
        descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(self._now.model_dump_json())
                file.flush()
                os.fsync(file.fileno())
            staging.replace(self._file)
        finally:
            staging.unlink(missing_ok=True)
