"""Which salt a store's users were hashed with: nobody is found again, or counted as the same, under another one.

Kept is what the salt makes of a constant, as it makes pseudonyms, so it tells no more than these do.
"""

from __future__ import annotations

from sqlalchemy import Column, Engine, String, Table, insert, select

from feedback.events import pseudonym
from infra.database import begin_write, create_tables, metadata
from infra.errors import UserError

SALT = "RATCHET_USER_SALT"
"""The environment variable that holds it."""

salt_marks = Table("salt_marks", metadata, Column("mark", String(64), primary_key=True))


def hold_to(engine: Engine, salt: str) -> None:
    """Check that `salt` is the store's; the first one that is used becomes it.

    Raises:
        UserError: its users were hashed with another one.
    """
    mark = pseudonym("ratchet: whose salt is this?", salt)
    create_tables(engine)
    with engine.connect() as connection:
        known = connection.scalars(select(salt_marks.c.mark)).first()
    if known is None:
        with begin_write(engine) as connection:
            known = connection.scalars(select(salt_marks.c.mark)).first()
            if known is None:
                connection.execute(insert(salt_marks).values(mark=mark))
                known = mark
    if known != mark:
        raise UserError(
            f"{SALT} is not the one that this store's users were hashed with, so nobody would be found again; export "
            "the one that was used before (`ratchet up` makes one in run/secrets.env only where none is exported)"
        )
