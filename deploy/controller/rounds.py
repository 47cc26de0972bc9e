"""Run each of the controller's duties once for every tenant; one tenant's failure does not keep the others."""

from __future__ import annotations

import logging

from sqlalchemy import Engine

from deploy.controller.canary_watch import watch_canary
from deploy.controller.job import ControllerJob
from deploy.controller.quality_watch import watch_quality
from deploy.controller.rollback_review import Answer, review_rollbacks
from deploy.controller.shadow_watch import watch_shadow
from deploy.experiments.shadow import Prefer
from deploy.ledger.evidence import Prove
from deploy.ledger.ledger import tenants
from deploy.ledger.state import DRILL_TENANT, RefusedTransition
from deploy.registry.reconcile import reconcile
from deploy.release.opening import Releases
from infra.alerts.outbox import enqueue
from infra.database.connect import begin_write
from infra.database.errors import in_short, is_away
from infra.errors import RatchetError, Unavailable
from infra.telemetry.mlflow_refusals import Refused, refusal_alert

log = logging.getLogger(__name__)


def releases_of(database: Engine, tenant: str, job: ControllerJob, prove: Prove) -> Releases:
    """Make what opens a tenant's releases as the job says."""
    return Releases(
        database,
        tenant,
        versions_dir=job.versions_dir,
        policy=job.canary,
        prove=prove,
        shadow_only=job.shadow_only,
        shared=job.tenants[0],
    )


def watch_once(database: Engine, job: ControllerJob, prove: Prove | None = None) -> dict[str, str]:
    """Watch every tenant's canary once; returns tenant -> decision. One tenant's failure does not keep the others.

    Args:
        prove: proves where a rollback goes; None: it goes there unproved.
    """
    results: dict[str, str] = {}
    for tenant in tenants(database):
        try:
            assessment = watch_canary(database, tenant, policy=job.canary, holder=job.holder, prove=prove)
            if assessment is not None:
                results[tenant] = assessment.decision
        except RefusedTransition as odd:  # its lease runs out, and gateways send everyone to the champion
            log.error("the watch of tenant %s cannot be looked at: %s", tenant, odd)
            results[tenant] = "failed"
        except Exception:  # the other tenants' watches must go on
            log.exception("looking at the watch of tenant %s failed", tenant)
            results[tenant] = "failed"
    return results


def follow_once(database: Engine, job: ControllerJob, prove: Prove) -> dict[str, str]:
    """Bring MLflow in step for every tenant; returns tenant -> what was moved, or why not."""
    from deploy.registry.model_registry import ModelRegistry

    assert job.mlflow_url is not None, "no MLflow to follow"
    results: dict[str, str] = {}
    for tenant in tenants(database):
        if tenant == DRILL_TENANT:
            continue
        name = job.mlflow_model if tenant == "default" else f"{job.mlflow_model}--{tenant}"
        try:
            moved = reconcile(releases_of(database, tenant, job, prove), ModelRegistry(job.mlflow_url, name))
            results[tenant] = ", ".join(moved) or "in step"
        except Refused as error:
            results[tenant] = str(error)
            _alert_refused(database, str(error))
            if error.about != "model":
                break  # it refuses all tenants
        except Unavailable as error:
            results[tenant] = str(error)
            break  # it is down for all tenants
        except RatchetError as error:
            log.warning("MLflow is not in step for tenant %s: %s", tenant, error)
            results[tenant] = str(error)
        except Exception as error:  # whatever it is about this tenant, the others are kept in step
            if is_away(error):
                raise
            log.exception("bringing MLflow in step for tenant %s failed", tenant)
            results[tenant] = f"failed: {in_short(error)}"
    return results


def _alert_refused(database: Engine, why: str) -> None:
    alert = refusal_alert(why, "What is live does not change; MLflow's aliases do not follow the ledger meanwhile.")
    with begin_write(database) as connection:
        fresh = enqueue(connection, alert)
    if fresh:
        log.warning("MLflow is not in step: %s", why)


def judge_once(database: Engine, job: ControllerJob, prefer: Prefer | None, answer: Answer | None) -> None:
    """Watch every tenant's version in shadow once, and review rollbacks that a blind judge has not seen.

    One tenant's failure does not keep the others.
    """
    for tenant in tenants(database):
        try:
            watch_shadow(database, tenant, policy=job.canary, shadow_only=job.shadow_only, prefer=prefer)
            if prefer is not None and answer is not None and job.canary.judge_pairs:
                review_rollbacks(database, tenant, policy=job.canary, answer=answer, prefer=prefer)
        except Exception:  # the other tenants' looks must go on
            log.exception("looking at what tenant %s has in shadow or barred failed", tenant)


def watch_qualities(database: Engine, job: ControllerJob) -> None:
    """Watch once the quality of every tenant's champion that nobody is compared with."""
    for tenant in tenants(database):
        try:
            watch_quality(database, tenant, job.canary)
        except Exception:  # the other tenants' looks must go on
            log.exception("looking at the quality of tenant %s's champion failed", tenant)
