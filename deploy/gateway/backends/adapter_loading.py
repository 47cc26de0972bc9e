"""Load and prove versions in one engine before they may answer; again after the engine's restart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from pathlib import Path

from deploy.engines.client import EngineClient, EngineRefusal
from deploy.engines.dialect import Dialect
from deploy.ledger.evidence import Proof
from deploy.versions.parity import prover
from infra.errors import RatchetError, Unavailable

log = logging.getLogger(__name__)
RETRY_SECONDS = 2.0
IDLE_SECONDS = 60.0
"""A version used so lately is not unloaded, whatever the limit: answers through it may still be on their way."""
PROVE_TRIES = 5


class AdapterLoader:
    """Knows which versions the engine was proved to serve; proves others when they are first needed."""

    def __init__(
        self,
        *,
        url: str,
        key: str,
        dialect: Dialect,
        versions_dir: Path,
        base_version: str,
        base_name: str,
        tolerance: float | None,
        limit: int = 64,
    ) -> None:
        self._limit = limit
        self._client = EngineClient(url, key, dialect=dialect)
        self._base_version = base_version
        self._prove = prover(
            self._client, versions_dir, base_version=base_version, base_name=base_name, tolerance=tolerance
        )
        self._proved: OrderedDict[str, float] = OrderedDict()  # version -> last use, the longest ago first
        self._shedding = False
        self._failed: dict[str, tuple[float, RatchetError]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def close(self) -> None:
        """Close the connections to the engine."""
        self._client.close()

    @property
    def proved(self) -> frozenset[str]:
        """Versions that may be routed to without asking again."""
        return frozenset(self._proved)

    def forget(self, version: str) -> None:
        """Forget that the engine has it: it must be loaded and proved again."""
        self._proved.pop(version, None)

    async def ensure(self, version: str) -> None:
        """Return when the engine serves `version`, proved.

        Raises:
            RatchetError: it cannot be loaded or proved (remembered for two seconds, so that a broken version does not
                cost every request a try), or the engine does not answer.
        """
        if version == self._base_version:
            return
        if version in self._proved:
            self._proved[version] = time.monotonic()
            self._proved.move_to_end(version)
            return
        failed = self._failed.get(version)
        if failed is not None and time.monotonic() - failed[0] < RETRY_SECONDS:
            raise failed[1]
        task = self._running.get(version)
        if task is None:
            task = asyncio.create_task(self._load(version))
            self._running[version] = task
            task.add_done_callback(lambda _: self._running.pop(version, None))
        await asyncio.shield(task)

    async def shed(self, pinned: frozenset[str]) -> None:
        """Unload the least recently used versions beyond the limit, never a pinned one or one just used.

        Another gateway of the same engine may still use one: its next request finds it gone and loads it again.
        """
        if len(self._proved) <= self._limit or self._shedding:
            return
        self._shedding = True
        try:
            for version, used in list(self._proved.items()):
                if len(self._proved) <= self._limit or time.monotonic() - used < IDLE_SECONDS:
                    return
                if version not in pinned:
                    self.forget(version)
                    await asyncio.to_thread(self._unload, version)
        finally:
            self._shedding = False

    def _unload(self, version: str) -> None:
        try:
            self._client.unload(version, wait_seconds=0)
        except RatchetError as error:  # it is gone already, or the engine is: either way it takes no room of ours
            log.info("version %s could not be unloaded: %s", version, error)

    async def _load(self, version: str) -> None:
        try:
            proof = await self._prove_patiently(version)
        except (Unavailable, EngineRefusal):
            raise  # says something of the engine now, nothing of the version
        except RatchetError as error:
            self._failed[version] = (time.monotonic(), error)
            log.error("version %s cannot be served: %s", version, error)
            raise
        self._failed.pop(version, None)
        self._proved[version] = time.monotonic()
        log.info("version %s is loaded and proved: %s", version, proof.model_dump(mode="json"))

    async def _prove_patiently(self, version: str) -> Proof:
        for _ in range(PROVE_TRIES - 1):
            try:
                return await asyncio.to_thread(self._prove, version)
            except EngineRefusal as refusal:
                if not refusal.model_unknown:
                    raise
                # Somebody unloaded it between our load and our probe: load it again.
        return await asyncio.to_thread(self._prove, version)
