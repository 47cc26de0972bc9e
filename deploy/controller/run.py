"""The controller: watches canaries, takes bad versions back, keeps MLflow in step, and delivers alerts.

    python -m deploy.controller controller.json

It keeps nothing in memory that matters: leases, judgements, moves and alerts are rows, every move is a compare-and-set,
so it may be killed anywhere and started again, and two of them do no harm. It needs neither Prefect nor MLflow to
watch. When it is dead, the canary's lease runs out and gateways route everyone to the champion.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field
from sqlalchemy import JSON, Column, Engine, Integer, String, Table, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from deploy.canary.policy import CanaryPolicy
from deploy.controller.canary_watch import look, watch_quality
from deploy.controller.rollback_review import Answer, judge_bars, judge_of
from deploy.controller.shadow_watch import look_at_shadow
from deploy.experiments.shadow import Prefer
from deploy.ledger.lease import canary_lease, release
from deploy.ledger.ledger import tenants
from deploy.ledger.state import DRILL_TENANT, RefusedTransition
from deploy.registry.reconcile import reconcile
from deploy.release.lifecycle import Prove, start
from evaluation.judges.config import JudgeConfig
from infra.alerts.outbox import AlertsConfig, deliver, enqueue
from infra.database.connect import UtcDateTime, begin_write, connect, metadata, now
from infra.database.errors import OTHER_TABLES, in_short, is_away, is_of_other_tables
from infra.database.schema import create_tables
from infra.errors import RatchetError, Unavailable, UserError
from infra.processes.job_file import job_main
from infra.settings import Config
from infra.telemetry.mlflow_refusals import Refused, refusal_alert

log = logging.getLogger(__name__)
_FALLBACK_SECONDS = 10.0
"""Longest wait for an engine that hangs before a rollback goes on unproved: users have the bad version meanwhile."""

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("pid", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("facts", JSON, nullable=False),
)


class ControllerJob(Config):
    """The one file of `python -m deploy.controller controller.json`."""

    database_url: str
    """SQLAlchemy URL of store, ledger and outbox."""
    versions_dir: Path
    """Folder of versions, as the engine sees it too."""
    base_version: str
    """Version name of the untouched base: the first champion of `tenants`."""
    base_path: Path | None = None
    """Folder of the base; with it, versions are published in the words of engines that know only LoRA, too."""
    tenants: tuple[str, ...] = ("default",)
    """Tenants that get the base as their first champion; others are found in the ledger. The first one's champion also
    serves tenants without one of their own."""
    engine_url: str | None = None
    """Address of the engine, where versions are loaded and proved; None: releases asked for in MLflow are put back."""
    replicas: tuple[str, ...] = ()
    """Addresses of further engines of the same kind; a version is proved in all of them."""
    engine: str = "embedded"
    """The engine's kind: embedded or vllm."""
    engine_base_name: str | None = None
    """What the engine calls the base. Default: `base_version`."""
    parity_tolerance: float | None = Field(default=None, gt=0)
    """Largest relative error of a version's effect, engine against record. Default: by engine and dtype."""
    canary: CanaryPolicy = CanaryPolicy()
    """How releases are watched, where the ledger does not say it of one."""
    alerts: AlertsConfig = AlertsConfig()
    """Where alerts go."""
    judges: tuple[JudgeConfig, ...] = ()
    """Judges of the evaluation: the first that needs no reference is asked after ratings sent a version back."""
    judge_cache: Path | None = None
    """Folder where a judge's answers are kept by content. Default: beside `versions_dir`."""
    shadow_only: bool = False
    """Whether an endpoint outside of Ratchet is champion: then versions in shadow stay there."""
    mlflow_url: str | None = None
    """MLflow server whose registry follows the ledger; None: none does."""
    mlflow_model: str = "ratchet"
    """Registered model of the tenant "default"; other tenants have "<this>--<tenant>"."""
    poll_seconds: float = Field(default=1.0, gt=0)
    """Wait between two looks at the watches, and between two deliveries of alerts."""
    registry_seconds: float = Field(default=5.0, gt=0)
    """Wait between two looks at MLflow."""
    holder: str = Field(default_factory=lambda: f"controller@{socket.gethostname()}")
    """Name under which it holds leases; the same after a restart, so that it goes on at once."""


def watch_once(engine: Engine, job: ControllerJob, prove: Prove | None = None) -> dict[str, str]:
    """One look at every tenant's watch; returns tenant -> decision. One tenant's failure does not keep the others.

    Args:
        prove: proves where a rollback goes; None: it goes there unproved.
    """
    seen: dict[str, str] = {}
    for tenant in tenants(engine):
        try:
            judged = look(engine, tenant, policy=job.canary, holder=job.holder, prove=prove)
            if judged is not None:
                seen[tenant] = judged.decision
        except RefusedTransition as odd:  # its lease runs out, and gateways send everyone to the champion
            log.error("the watch of tenant %s cannot be looked at: %s", tenant, odd)
            seen[tenant] = "failed"
        except Exception:  # the other tenants' watches must go on
            log.exception("looking at the watch of tenant %s failed", tenant)
            seen[tenant] = "failed"
    return seen


def follow_once(engine: Engine, job: ControllerJob, prove: Prove) -> dict[str, str]:
    """Bring MLflow in step for every tenant; returns tenant -> what was moved, or why not."""
    from deploy.registry.aliases import Registry

    assert job.mlflow_url is not None, "no MLflow to follow"
    seen: dict[str, str] = {}
    for tenant in tenants(engine):
        if tenant == DRILL_TENANT:
            continue
        name = job.mlflow_model if tenant == "default" else f"{job.mlflow_model}--{tenant}"
        try:
            moved = reconcile(
                engine,
                Registry(job.mlflow_url, name),
                tenant,
                versions_dir=job.versions_dir,
                policy=job.canary,
                prove=prove,
                shadow_only=job.shadow_only,
                shared=job.tenants[0],
            )
            seen[tenant] = ", ".join(moved) or "in step"
        except Refused as error:
            seen[tenant] = str(error)
            _tell_refused(engine, str(error))
            if error.about != "model":
                break  # it refuses all tenants
        except Unavailable as error:
            seen[tenant] = str(error)
            break  # it is down for all tenants
        except RatchetError as error:
            log.warning("MLflow is not in step for tenant %s: %s", tenant, error)
            seen[tenant] = str(error)
        except Exception as error:  # whatever it is about this tenant, the others are kept in step
            if is_away(error):
                raise
            log.exception("bringing MLflow in step for tenant %s failed", tenant)
            seen[tenant] = f"failed: {in_short(error)}"
    return seen


def _tell_refused(engine: Engine, why: str) -> None:
    told = refusal_alert(why, "What is live does not change; MLflow's aliases do not follow the ledger meanwhile.")
    with begin_write(engine) as connection:
        fresh = enqueue(connection, told)
    if fresh:
        log.warning("MLflow is not in step: %s", why)


def make_prover(job: ControllerJob, *, timeout: float = 120.0) -> Prove:
    """Loads and proves versions in the engine; without one, refuses all.

    Args:
        timeout: seconds that one call of the engine may take before it counts as one that does not answer.
    """
    if job.engine_url is None:

        def refuse(version: str) -> Mapping[str, Any]:
            raise Unavailable(f"no engine is configured to prove {version} in; set engine_url")

        return refuse
    from deploy.config import ENGINE_KEY
    from deploy.engines import SERVING_ENGINES
    from deploy.engines.client import EngineClient
    from deploy.versions.parity import prover

    dialect, key = SERVING_ENGINES.named(job.engine), os.environ.get(ENGINE_KEY, "")
    provers = [
        prover(
            EngineClient(url, key, dialect=dialect, timeout=timeout),
            job.versions_dir,
            base_version=job.base_version,
            base_name=job.engine_base_name,
            tolerance=job.parity_tolerance,
        )
        for url in (job.engine_url, *job.replicas)
    ]

    return prove_everywhere(provers)


def prove_everywhere(provers: Sequence[Prove]) -> Prove:
    """Proves a version in every engine that answers; one engine's refusal is everybody's.

    An engine that does not answer keeps no release from the others: a gateway proves a version in each engine by itself
    before it sends that one a request, so the engine is proved when it is back. At least one must answer.
    """

    def prove(version: str) -> Mapping[str, Any]:
        measured: list[Mapping[str, Any]] = []
        away: list[Unavailable] = []
        for prove_in in provers:
            try:
                measured.append(prove_in(version))
            except Unavailable as error:
                log.warning("%s is not proved in one engine: %s", version, error)
                away.append(error)
        if not measured:
            raise away[0]
        return {**measured[0], "engines": len(measured), **({"engines_away": len(away)} if away else {})}

    return prove


def make_answer(job: ControllerJob, prove: Prove) -> Answer:
    """Asks the engine for a version's answer, loading and proving it first; for the blind judge."""
    from deploy.config import ENGINE_KEY
    from deploy.engines import SERVING_ENGINES
    from deploy.engines.client import EngineClient

    assert job.engine_url is not None, "no engine to ask"
    client = EngineClient(job.engine_url, os.environ.get(ENGINE_KEY, ""), dialect=SERVING_ENGINES.named(job.engine))

    def answer(version: str, messages: Sequence[Mapping[str, str]], sampling: Mapping[str, Any]) -> str:
        prove(version)
        name = (job.engine_base_name or version) if version == job.base_version else version
        body = {**sampling, "model": name, "messages": list(messages)}
        return str(client.chat(body)["choices"][0]["message"]["content"] or "")

    return answer


def judge_once(engine: Engine, job: ControllerJob, prefer: Prefer | None, answer: Answer | None) -> None:
    """One look at every tenant's version in shadow, and at bars that a blind judge has not seen.

    One tenant's failure does not keep the others.
    """
    for tenant in tenants(engine):
        try:
            look_at_shadow(engine, tenant, policy=job.canary, shadow_only=job.shadow_only, prefer=prefer)
            if prefer is not None and answer is not None and job.canary.judge_pairs:
                judge_bars(engine, tenant, policy=job.canary, answer=answer, prefer=prefer)
        except Exception:  # the other tenants' looks must go on
            log.exception("looking at what tenant %s has in shadow or barred failed", tenant)


def watch_qualities(engine: Engine, job: ControllerJob) -> None:
    """One look at every tenant's champion that nobody is compared with; one tenant's failure keeps no other."""
    for tenant in tenants(engine):
        try:
            watch_quality(engine, tenant, job.canary)
        except Exception:  # the other tenants' looks must go on
            log.exception("looking at the quality of tenant %s's champion failed", tenant)


def beat(engine: Engine, name: str, facts: Mapping[str, Any]) -> None:
    """Say that the controller lives, and what it last did."""
    with begin_write(engine) as connection:
        connection.execute(delete(heartbeats).where(heartbeats.c.name == name))
        connection.execute(insert(heartbeats).values(name=name, pid=os.getpid(), at=now(), facts=dict(facts)))


def last_beats(engine: Engine) -> dict[str, tuple[datetime, dict[str, Any]]]:
    """Controller's name -> when it was last alive and what it said, for `ratchet status`."""
    with engine.connect() as connection:
        return {row.name: (row.at, dict(row.facts)) for row in connection.execute(select(heartbeats))}


def run(job: ControllerJob, stop: threading.Event) -> None:
    """Work until `stop` is set. Alerts and MLflow have threads of their own: neither may delay a rollback."""
    engine = connect(job.database_url)
    while not _prepared(engine, job):
        if stop.wait(job.poll_seconds):
            return
    facts: dict[str, Any] = {"watches": {}, "mlflow": {}}
    threads = [_every(job.poll_seconds, stop, "alerts", lambda: deliver(engine, job.alerts))]
    if job.mlflow_url is not None:
        prove = make_prover(job)

        def follow_registry() -> None:
            facts["mlflow"] = follow_once(engine, job, prove)

        threads.append(_every(job.registry_seconds, stop, "mlflow", follow_registry))
    prefer = judge_of(job.judges, job.judge_cache or job.versions_dir.parent / "judge-cache") if job.judges else None
    answer = make_answer(job, _remembering(make_prover(job))) if prefer is not None and job.engine_url else None
    threads.append(_every(job.registry_seconds, stop, "shadow", lambda: judge_once(engine, job, prefer, answer)))
    threads.append(_every(60.0, stop, "quality", lambda: watch_qualities(engine, job)))
    prove_fallback = make_prover(job, timeout=_FALLBACK_SECONDS)
    looks = 0
    while not stop.is_set():
        try:
            facts["watches"] = watch_once(engine, job, prove_fallback)
            if looks % max(1, round(2.0 / job.poll_seconds)) == 0:
                beat(engine, job.holder, facts)
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
        for tenant in tenants(engine):
            release(engine, canary_lease(tenant), job.holder)
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


def _prepared(engine: Engine, job: ControllerJob) -> bool:
    """Tables made and first champions written; False while the database is away, which is no reason to give up.

    Raises:
        UserError: the tables are another release's.
    """
    try:
        create_tables(engine)
        for tenant in job.tenants:
            _start(engine, tenant, job.base_version)
    except SQLAlchemyError as error:
        if is_of_other_tables(error):
            raise UserError(f"{OTHER_TABLES} ({in_short(error)})") from error
        what = "does not answer" if is_away(error) else "refuses"
        log.error("the database %s, tried again: %s", what, in_short(error))
        return False
    return True


def _start(engine: Engine, tenant: str, base: str) -> None:
    try:
        start(engine, tenant, base, actor="controller")
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


def _remembering(prove: Prove) -> Prove:
    """Proves each version once: a judge asks for dozens of answers of the same one."""
    known: dict[str, Mapping[str, Any]] = {}

    def once(version: str) -> Mapping[str, Any]:
        if version not in known:
            known[version] = prove(version)
        return known[version]

    return once


def _every(
    seconds: float,
    stop: threading.Event,
    name: str,
    work: Callable[[], object],
) -> threading.Thread:
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
