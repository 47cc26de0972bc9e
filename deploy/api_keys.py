"""Create, verify and revoke the gateway's API keys: shown once, stored as SHA-256, each with a tenant and scopes.

A key is 256 random bits, so a plain hash is enough: there is no dictionary to try.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import Column, Engine, RowMapping, String, Table, insert, select, update

from infra.database.connect import UtcDateTime, begin_write, metadata, now
from infra.errors import NotFound, UserError
from infra.settings import Config

Scope = Literal["chat", "feedback", "trusted", "admin"]
PREFIX = "rk-"

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("tenant", String(200), nullable=False),
    Column("name", String(200), nullable=False),
    Column("scopes", String(200), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
)


class ApiKey(Config):
    """What is known of a key; never the key itself."""

    key_id: str
    """Public name of the key."""
    tenant: str
    """Whose requests it makes."""
    name: str
    """What it is for."""
    scopes: frozenset[Scope]
    """chat: ask and list models. feedback: rate. trusted: its labels may stand in the gate set. admin: pin versions."""
    created_at: datetime
    """When it was made."""

    def may(self, scope: Scope) -> bool:
        """Check whether the key has the scope; admin has chat and feedback too, but is no trusted rater by itself."""
        return scope in self.scopes or ("admin" in self.scopes and scope != "trusted")


def create_key(database: Engine, *, tenant: str, name: str, scopes: Sequence[str]) -> tuple[str, ApiKey]:
    """Make a key; returns the secret, which is stored nowhere, and what is known of it.

    Raises:
        UserError: an unknown scope, or none.
    """
    unknown = set(scopes) - set(get_args(Scope))
    if unknown or not scopes:
        raise UserError(f"scopes {sorted(scopes)}: expected one or more of {', '.join(get_args(Scope))}")
    secret = PREFIX + secrets.token_urlsafe(32)
    key_id = secrets.token_hex(8)
    with begin_write(database) as connection:
        connection.execute(
            insert(api_keys).values(
                key_id=key_id,
                hash=hash_of(secret),
                tenant=tenant,
                name=name,
                scopes=",".join(sorted(set(scopes))),
                created_at=now(),
            )
        )
    found = verify(database, secret)
    assert found is not None
    return secret, found


def verify(database: Engine, secret: str) -> ApiKey | None:
    """Look up the key with this secret, unless it is unknown or revoked."""
    query = select(api_keys).where(api_keys.c.hash == hash_of(secret), api_keys.c.revoked_at.is_(None))
    with database.connect() as connection:
        row = connection.execute(query).mappings().first()
    return None if row is None else _key(row)


def list_keys(database: Engine, tenant: str | None = None) -> list[ApiKey]:
    """List the keys that are not revoked, oldest first."""
    query = select(api_keys).where(api_keys.c.revoked_at.is_(None)).order_by(api_keys.c.created_at)
    if tenant is not None:
        query = query.where(api_keys.c.tenant == tenant)
    with database.connect() as connection:
        return [_key(row) for row in connection.execute(query).mappings()]


def keys_by_hash(database: Engine) -> dict[str, ApiKey]:
    """List the keys that are not revoked by their hashes."""
    query = select(api_keys).where(api_keys.c.revoked_at.is_(None)).order_by(api_keys.c.hash)
    with database.connect() as connection:
        return {row["hash"]: _key(row) for row in connection.execute(query).mappings()}


def revoke_key(database: Engine, key_id: str) -> None:
    """End a key; gateways follow within seconds.

    Raises:
        NotFound: there is no such key, or it is revoked already.
    """
    with begin_write(database) as connection:
        done = connection.execute(
            update(api_keys)
            .where(api_keys.c.key_id == key_id, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=now())
        )
    if done.rowcount == 0:
        raise NotFound(f"there is no key {key_id!r} that is not revoked; list them with `ratchet keys list`")


def hash_of(secret: str) -> str:
    """Hash a key: what is stored of it."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: RowMapping) -> ApiKey:
    return ApiKey(
        key_id=row["key_id"],
        tenant=row["tenant"],
        name=row["name"],
        scopes=frozenset(row["scopes"].split(",")),
        created_at=row["created_at"],
    )
