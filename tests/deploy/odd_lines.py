"""Lines in the ledger that this release would not write, put there as a newer release or a damaged disk would."""

from __future__ import annotations

from sqlalchemy import Engine, text


def put_odd_line(engine: Engine, tenant: str, action: str, version: str, **columns: object) -> None:
    """Write a line that nothing checks, after the tenant's last one."""
    values = {"previous": None, "share": None, "evidence": "{}", "at": 0, **columns}
    statement = (
        "INSERT INTO releases (tenant, tenant_seq, action, version, actor, reason, previous, share, evidence, at) "
        "SELECT :tenant, max(tenant_seq) + 1, :action, :version, 'newer', 'r', :previous, :share, :evidence, :at "
        "FROM releases WHERE tenant = :tenant"
    )
    with engine.begin() as connection:
        connection.execute(text(statement), {"tenant": tenant, "action": action, "version": version, **values})
