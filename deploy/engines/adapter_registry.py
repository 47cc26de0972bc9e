"""Load and unload adapters under content-hash names, which are never reused for other bytes."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Literal

from deploy.engines.protocol import unknown_model
from deploy.engines.worker import Worker
from infra.artifact import digest_dir
from infra.errors import Conflict, CorruptArtifact, NotFound

Unloaded = Literal["unloaded", "draining", "kept"]
CONTENT_NAME = re.compile(r"^v([0-9a-f]{16})$")


class AdapterRegistry:
    """Knows which names stand for which bytes, and which of them are loaded."""

    def __init__(self, worker: Worker, base_name: str) -> None:
        self.worker = worker
        self.base_name = base_name
        self.digests: dict[str, str] = {}  # every name ever used in this process: never reused
        self.loaded: dict[str, int] = {}
        self.closing: set[str] = set()
        self._lock = asyncio.Lock()

    @property
    def names(self) -> list[str]:
        """Names that requests may ask for."""
        return [self.base_name, *(name for name in self.loaded if name not in self.closing)]

    def adapter(self, model: str) -> str | None:
        """Return what the generator calls this model (None: the base)."""
        if model == self.base_name:
            return None
        if model not in self.loaded or model in self.closing:
            raise unknown_model(model, self.names)
        return model

    async def load(self, name: str, path: Path) -> None:
        """Load an adapter or whole model; its bytes must be those that a content-hash name says."""
        async with self._lock:
            weights = next((path / part for part in ("adapter", "model") if (path / part).is_dir()), path)
            digest = await asyncio.to_thread(digest_dir, weights)
            expected = CONTENT_NAME.match(name)
            if expected is not None and not digest.startswith(expected[1]):
                raise CorruptArtifact(
                    f"{weights} has digest {digest[:16]}, its name says {expected[1]}: the bytes were changed or cut; "
                    "copy the version again"
                )
            if name == self.base_name or self.digests.get(name, digest) != digest:
                raise Conflict(f"{name!r} already stands for other bytes in this engine; names are never reused")
            if name in self.loaded:
                self.closing.discard(name)
                return
            generator = self.worker.generator
            if (weights / "adapter_config.json").exists():
                await self.worker.call(lambda: generator.attach(name, weights))
            elif (weights / "config.json").exists():
                await self.worker.call(lambda: generator.attach_model(name, weights))
            else:
                raise NotFound(
                    f"{weights} has neither adapter_config.json nor config.json; expected a version's folder"
                )
            self.digests[name] = digest
            self.loaded[name] = int(time.time())

    async def unload(self, name: str, wait_seconds: float) -> Unloaded:
        """Take a name off at once, and its weights away when the last answer through it has ended (see `finish`)."""
        if name not in self.loaded:
            raise NotFound(f"{name!r} is not loaded; loaded are: {', '.join(self.names)}")
        self.closing.add(name)
        return await self.finish(name, wait_seconds)

    async def finish(self, name: str, wait_seconds: float) -> Unloaded:
        """Wait for the last answer, then take the weights away: `unloaded`.

        `draining`: answers still run after `wait_seconds`. `kept`: it was loaded again, which ends the unload.
        """
        deadline = time.monotonic() + wait_seconds
        while name in self.closing:
            if not await self.worker.unused(name, deadline - time.monotonic()):
                return "draining"
            async with self._lock:
                if name in self.closing and not self.worker.references[name]:
                    await self.worker.call(lambda: self.worker.forget(name))
                    del self.loaded[name]
                    self.closing.discard(name)
        return "kept" if name in self.loaded else "unloaded"
