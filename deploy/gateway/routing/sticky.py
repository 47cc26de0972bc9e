"""Keep assignments sticky: the arm of a unit before a share rose is read from its own earlier interactions."""

from __future__ import annotations

from collections import OrderedDict

from sqlalchemy import Engine, select

from deploy.gateway.database.query_executor import QueryExecutor
from deploy.gateway.routing.assign import Assignment, RoutingTable, assign, keep
from feedback.store.store import interactions

REMEMBER = 100_000


class StickyAssignments:
    """Assigns units to arms, sticky over steps and gateways. The memory is only a cache."""

    def __init__(self, database: Engine, queries: QueryExecutor | None = None) -> None:
        self._database = database
        self._queries = queries or QueryExecutor()
        self._memory: OrderedDict[tuple[str, int, str], tuple[str, float]] = OrderedDict()

    async def of(self, table: RoutingTable, unit: str) -> Assignment:
        """Assign this unit, as before where it was assigned before."""
        if table.phase != "canary":
            return assign(table, unit)
        key = (table.tenant, table.release_seq, unit)
        assigned = self._memory.get(key)
        if assigned is None and table.stepped:
            # At the first share the hash alone decides; later the unit may have been assigned under a lower one.
            assigned = await self._queries.run(self._read, table.tenant, table.release_seq, unit)
        earlier = keep(table, *assigned) if assigned is not None else None
        result = earlier or assign(table, unit)
        self._memory[key] = (result.arm, result.probability)
        self._memory.move_to_end(key)
        while len(self._memory) > REMEMBER:
            self._memory.popitem(last=False)
        return result

    def _read(self, tenant: str, release_seq: int, unit: str) -> tuple[str, float] | None:
        query = (
            select(interactions.c.arm, interactions.c.probability)
            .where(
                interactions.c.tenant == tenant,
                interactions.c.release_seq == release_seq,
                interactions.c.unit == unit,
            )
            .order_by(interactions.c.seq)
            .limit(1)
        )
        with self._database.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else (str(row.arm), float(row.probability))
