"""Run the controller: watch canaries, take bad versions back, keep MLflow in step, and deliver alerts.

    python -m deploy.controller controller.json

It keeps nothing in memory that matters: leases, assessments, moves and alerts are rows, every move is a
compare-and-set, so it may be killed anywhere and started again, and two of them do no harm. It needs neither Prefect
nor MLflow to watch. When it is dead, the canary's lease runs out and gateways route everyone to the champion.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from deploy.controller.heartbeat import Activity, beat
from deploy.controller.job import ControllerJob
from deploy.controller.proving import make_answer, make_prover
from deploy.controller.rollback_review import judge_of
from deploy.controller.rounds import follow_once, judge_once, watch_once, watch_qualities
from deploy.ledger.lease import canary_lease, release
from deploy.ledger.ledger import tenants
from deploy.ledger.state import RefusedTransition
from deploy.release.lifecycle import start
from infra.alerts.delivery import deliver
from infra.database.connect import connect
from infra.database.errors import OTHER_TABLES, in_short, is_away, is_of_other_tables
from infra.database.schema import create_tables
from infra.errors import Unavailable, UserError
from infra.processes.job_file import job_main

log = logging.getLogger(__name__)
_FALLBACK_SECONDS = 10.0
"""Longest wait for an engine that hangs before a rollback goes on unproved: users have the bad version meanwhile."""


def run(job: ControllerJob, stop: threading.Event) -> None:
    """Work until `stop` is set. Alerts and MLflow have threads of their own: neither may delay a rollback."""
    database = connect(job.database_url)
    while not _prepared(database, job):
        if stop.wait(job.poll_seconds):
            return
    watches: dict[str, str] = {}
    mlflow: dict[str, str] = {}
    threads = [_every(job.poll_seconds, stop, "alerts", lambda: deliver(database, job.alerts))]
    if job.mlflow_url is not None:
        prove = make_prover(job)

        def follow_registry() -> None:
            nonlocal mlflow
            mlflow = follow_once(database, job, prove)

        threads.append(_every(job.registry_seconds, stop, "mlflow", follow_registry))
    prefer = judge_of(job.judges, job.judge_cache_dir) if job.judges else None
    answer = make_answer(job, make_prover(job)) if prefer is not None and job.engine_url else None
    threads.append(_every(job.registry_seconds, stop, "shadow", lambda: judge_once(database, job, prefer, answer)))
    threads.append(_every(60.0, stop, "quality", lambda: watch_qualities(database, job)))
    prove_fallback = make_prover(job, timeout=_FALLBACK_SECONDS)
    looks = 0
    while not stop.is_set():
        try:
            watches = watch_once(database, job, prove_fallback)
            if looks % max(1, round(2.0 / job.poll_seconds)) == 0:
                beat(database, job.holder, Activity(watches=watches, mlflow=mlflow))
        except Exception as error:  # the database may be away for a while; watching goes on when it is back
            if is_away(error):
                log.error("the database is away, the controller looks again: %s", in_short(error))
            else:
                log.exception("the controller's look failed; it looks again in %s s", job.poll_seconds)
        looks += 1
        stop.wait(job.poll_seconds)
        _all_alive(threads, stop)
    for thread in threads:
        thread.join(10.0)
    try:
        for tenant in tenants(database):
            release(database, canary_lease(tenant), job.holder)
    except SQLAlchemyError as error:
        log.warning("leases were not given back and run out by themselves: %s", in_short(error))


def main(argv: list[str]) -> int:
    """Run as a process until SIGTERM or SIGINT."""
    return job_main("controller", argv, ControllerJob, _run_until_stopped)


def _run_until_stopped(job: ControllerJob) -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("controller %s watches %s", job.holder, job.database_url.rpartition("@")[2])
    run(job, stop)


def _prepared(database: Engine, job: ControllerJob) -> bool:
    """Tables made and first champions written; False while the database is away, which is no reason to give up.

    Raises:
        UserError: the tables are another release's.
    """
    try:
        create_tables(database)
        for tenant in job.tenants:
            _start(database, tenant, job.base_version)
    except SQLAlchemyError as error:
        if is_of_other_tables(error):
            raise UserError(f"{OTHER_TABLES} ({in_short(error)})") from error
        what = "does not answer" if is_away(error) else "refuses"
        log.error("the database %s, tried again: %s", what, in_short(error))
        return False
    return True


def _start(database: Engine, tenant: str, base: str) -> None:
    try:
        start(database, tenant, base, actor="controller")
    except RefusedTransition as odd:  # this tenant waits for another release; the others need not
        log.error("tenant %s is left as it is: %s", tenant, odd)


def _all_alive(threads: Sequence[threading.Thread], stop: threading.Event) -> None:
    """End the controller when one of its threads has ended: whoever looks after processes starts a whole one.

    Raises:
        Unavailable: one has.
    """
    ended = [thread.name for thread in threads if not thread.is_alive()]
    if ended and not stop.is_set():
        stop.set()
        raise Unavailable(
            f"the controller's work on {', '.join(ended)} has ended by itself; start the controller again"
        )


def _every(seconds: float, stop: threading.Event, name: str, work: Callable[[], object]) -> threading.Thread:
    """Start a thread that does `work` again and again, whatever goes wrong, until `stop`."""

    def loop() -> None:
        while not stop.is_set():
            try:
                work()
            except Exception as error:  # a thread that dies quietly would be worse than one that complains for ever
                if is_away(error):
                    log.error("%s is tried again in %s s: %s", name, seconds, in_short(error))
                else:
                    log.exception("%s failed; tried again in %s s", name, seconds)
            stop.wait(seconds)

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    return thread
