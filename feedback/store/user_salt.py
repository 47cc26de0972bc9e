"""Make pseudonyms of users under a salt, and verify that the salt is the one that this store's users have.

Under another one nobody would be found again, or counted as the same. Kept is what the salt makes of a constant, as it
makes pseudonyms, so it tells no more than these do.
"""

from __future__ import annotations

import hashlib
import hmac
from contextlib import suppress

from sqlalchemy import Column, Engine, Integer, String, Table, insert, select
from sqlalchemy.exc import IntegrityError

from feedback.field_types import storable
from infra.database.connect import begin_write, metadata
from infra.errors import UserError

SALT = "RATCHET_USER_SALT"
"""The environment variable that holds it."""

salt_marks = Table(
    "salt_marks",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("mark", String(64), nullable=False),
)


def pseudonym(identity: str, salt: str) -> str:
    """Make a stable stand-in for a person's id: HMAC-SHA256 under `salt`, 96 bits; it cannot be turned back."""
    return "u-" + hmac.new(salt.encode(), storable(identity).encode(), hashlib.sha256).hexdigest()[:24]


def verify_salt(database: Engine, salt: str) -> None:
    """Verify that `salt` is the store's; the first one that is used becomes it. The tables are there already.

    Raises:
        UserError: its users were hashed with another one.
    """
    mark = salt_fingerprint(salt)
    known = _known(database)
    if known is None:
        with suppress(IntegrityError), begin_write(database) as connection:  # another process was first
            connection.execute(insert(salt_marks).values(id=1, mark=mark))
        known = _known(database)
    if known != mark:
        raise UserError(
            f"{SALT} is not the one that this store's users were hashed with, so nobody would be found again; export "
            "the one that was used before (`ratchet up` makes one in run/secrets.env only where none is exported)"
        )


def salt_fingerprint(salt: str) -> str:
    """Compute the fingerprint that is kept of a salt, to know it again."""
    return pseudonym("ratchet: whose salt is this?", salt)


def _known(database: Engine) -> str | None:
    with database.connect() as connection:
        return connection.scalars(select(salt_marks.c.mark)).first()
