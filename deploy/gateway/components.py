"""Make, start and stop everything that one gateway process is made of."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from deploy.config import UPSTREAM_KEY, GatewayJob
from deploy.engines import SERVING_ENGINES
from deploy.engines.client import AsyncEngineClient
from deploy.gateway.access.gatekeeper import Gatekeeper
from deploy.gateway.access.key_cache import KeyCache
from deploy.gateway.backends.adapter_loading import AdapterLoader
from deploy.gateway.backends.replicas import Replica, ReplicaPool
from deploy.gateway.capture.queue import CaptureQueue
from deploy.gateway.capture.spool import Spool
from deploy.gateway.chat.backend import Backend
from deploy.gateway.chat.record import InteractionRecorder
from deploy.gateway.chat.serving_backend import ServingBackend
from deploy.gateway.chat.shadowing import ShadowRunner
from deploy.gateway.chat.upstream_backend import UpstreamBackend
from deploy.gateway.database.query_executor import QueryExecutor
from deploy.gateway.offline_cache import OfflineCache
from deploy.gateway.open_database import DatabaseOpener, fingerprint
from deploy.gateway.readiness import Readiness
from deploy.gateway.routing.follow_ledger import RoutingTables
from deploy.gateway.routing.sticky import StickyAssignments
from deploy.gateway.telemetry.metrics import Metrics
from feedback.store.store import Store
from feedback.store.user_salt import salt_fingerprint
from infra.database.connect import connect
from infra.database.timeouts import serving as database_timeouts


class Gateway:
    """The parts of one gateway; making it connects to nothing."""

    def __init__(self, job: GatewayJob, *, engine_key: str, user_salt: str) -> None:
        serving = job.serving
        self.job, self.user_salt = job, user_salt
        self.metrics = Metrics()
        self.database = connect(job.database_url, database_timeouts(serving.database_seconds))
        # The console's pages read much more at once than an answer does.
        self.pages = connect(job.database_url, database_timeouts(max(30.0, serving.database_seconds)))
        self.queries = QueryExecutor(serving.database_seconds)
        self.opener = DatabaseOpener(self.database, self.queries, user_salt)
        self.offline = OfflineCache(
            job.spool, database=fingerprint(self.database), salt_mark=salt_fingerprint(user_salt)
        )
        self.store = Store(self.database)
        self.engines = ReplicaPool([_replica(job, url, engine_key) for url in job.engine_urls])
        self.tables = RoutingTables(
            self.database,
            self.engines,
            shared=job.tenant,
            base=job.base_name,
            poll_seconds=serving.poll_seconds,
            queries=self.queries,
            keep=self.offline.keep_view,
        )
        self.engines.pinned = lambda: self.tables.pinned
        self.keys = KeyCache(
            self.database, self.queries, offline_seconds=serving.offline_keys_seconds, keep=self.offline.keep_keys
        )
        self.keeper = Gatekeeper(
            self.database,
            requests_per_minute=serving.requests_per_minute / serving.gateways,
            offline_seconds=serving.offline_keys_seconds,
            queries=self.queries,
            book=self.keys,
        )
        self.capture = CaptureQueue(
            self.database,
            Spool(job.spool, serving.spool_max_bytes),
            seconds=serving.database_seconds,
            queries=self.queries,
        )
        self.recorder = InteractionRecorder(job, self.capture, self.metrics, user_salt)
        self.shadows = ShadowRunner(job, self.database, self.engines, self.queries)
        self.backend = self._make_backend()
        self.readiness = Readiness(
            self.database,
            queries=self.queries,
            capture=self.capture,
            tables=self.tables,
            lease_seconds=job.lease_seconds,
            answers=self.backend.outage,
            ended=self.ended,
        )

    def _make_backend(self) -> Backend:
        job, serving = self.job, self.job.serving
        own = ServingBackend(
            job,
            engines=self.engines,
            tables=self.tables,
            assignments=StickyAssignments(self.database, self.queries),
            recorder=self.recorder,
            salt=self.user_salt,
        )
        if serving.upstream_url is None or serving.upstream_model is None or serving.upstream_version is None:
            return own
        url = serving.upstream_url.rstrip("/").removesuffix("/v1")
        return UpstreamBackend(
            AsyncEngineClient(url, os.environ.get(UPSTREAM_KEY, ""), timeout=serving.request_seconds),
            serving.upstream_model,
            version=serving.upstream_version,
            own=own,
            tables=self.tables,
            recorder=self.recorder,
            salt=self.user_salt,
        )

    def ended(self) -> dict[str, str]:
        """List lasting tasks that ended without being asked to, and of what."""
        return {**self.opener.ended, **self.capture.ended, **self.tables.ended, **self.keys.ended}

    async def start(self) -> None:
        """Open the database, or go on with what an earlier process kept, and start what lasts."""
        # Loading versions waits on threads, too; a page of the console that hangs must not keep it from one.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
        kept = await asyncio.to_thread(self.offline.read)
        await self.opener.open(kept)
        self.capture.start()
        await self.tables.start(kept.view if kept is not None else None)
        self.keys.start(*((kept.keys, kept.keys_at) if kept is not None else ()))

    async def stop(self) -> None:
        """Stop what lasts, and close all connections."""
        await self.opener.stop()
        await self.keys.stop()
        await self.tables.stop()
        await self.shadows.stop()
        await self.capture.stop()
        self.queries.close()
        await self.backend.close()
        self.database.dispose()
        self.pages.dispose()


def _replica(job: GatewayJob, url: str, key: str) -> Replica:
    serving = job.serving
    dialect = SERVING_ENGINES.named(serving.engine)
    loader = AdapterLoader(
        url=url,
        key=key,
        dialect=dialect,
        versions_dir=job.versions_dir,
        base_version=job.base_name,
        base_name=serving.base_model_name or job.base_name,
        tolerance=serving.parity_tolerance,
        limit=serving.max_loaded,
    )
    return Replica(AsyncEngineClient(url, key, dialect=dialect, timeout=serving.request_seconds), loader)
