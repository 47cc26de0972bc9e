"""``python -m deploy.gateway gateway.json``"""

from __future__ import annotations

import sys

from deploy.config import ENGINE_KEY, GatewayJob
from infra.processes.job_file import job_main


def main(argv: list[str]) -> int:
    """Serve until SIGTERM; running answers end first."""
    return job_main("gateway", argv, GatewayJob, serve)


def serve(job: GatewayJob) -> None:
    """Serve what the job's file says.

    Raises:
        SchemaMismatch: the database's tables are of another release.
    """
    import uvicorn

    from deploy.gateway.app import build_app
    from feedback.store.user_salt import SALT
    from infra.settings import secret
    from infra.telemetry.otel import start_tracing, stop_tracing

    _look_at_tables(job.database_url, max(10.0, job.serving.database_seconds))
    start_tracing("ratchet-gateway")
    app = build_app(job, engine_key=secret(ENGINE_KEY), user_salt=secret(SALT))
    uvicorn.run(
        app, host=job.host, port=job.port, log_level="warning", timeout_keep_alive=75, timeout_graceful_shutdown=30
    )
    stop_tracing()


def _look_at_tables(url: str, seconds: float) -> None:
    """Refuse tables of another release before the server starts, which would bury that under its own words.

    One that is away is the server's to deal with: it may have kept what it needs to go on without (`opening`).
    """
    from infra.database.connect import connect
    from infra.database.errors import is_away
    from infra.database.schema import create_tables
    from infra.database.timeouts import serving

    database = connect(url, serving(seconds))
    try:
        create_tables(database)
    except Exception as error:
        if not is_away(error):
            raise
    finally:
        database.dispose()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
