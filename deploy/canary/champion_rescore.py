"""Re-score the live champion on fresh items: keep the p-value for the watch of its holdback, or alert people."""

from __future__ import annotations

import logging

from sqlalchemy import Engine

from deploy.canary.assess import rescore_verdict
from deploy.canary.policy import CanaryPolicy
from deploy.canary.rescore import record_rescore, rescored
from deploy.ledger.ledger import ReleaseState, Watch, current
from evaluation.gate.policy import GatePolicy
from evaluation.gate.rescore import NotRescored, Rescore, rescore
from evaluation.scorecard import Scorecard
from infra.alerts.outbox import Alert, enqueue
from infra.database.connect import begin_write

log = logging.getLogger(__name__)


def rescore_champion(
    database: Engine, scorecard: Scorecard, state: ReleaseState, policy: GatePolicy, canary: CanaryPolicy
) -> None:
    """Compare the champion with its predecessor on items that no earlier verdict used.

    Args:
        state: the release state that the night began with.
        policy: the gate's, for the test.
        canary: the canary's, for the error rate of the p-values together.
    """
    test = rescore(scorecard, state.predecessor, policy)
    if isinstance(test, NotRescored):
        log.info("the champion is not re-scored tonight: %s", test.reason)
        return
    latest = current(database, state.tenant)
    if latest.champion_seq != state.champion_seq:
        log.info("%s is no longer the champion that the night began with: no p-value of it is kept", test.champion)
        return
    record_rescore(database, state.tenant, test.champion, scorecard.night_id, test.p_value)
    p_values = rescored(database, state.tenant, test.champion, since=latest.since)
    worse = rescore_verdict(p_values, canary.alpha("rescore"))
    log.info("re-scored on %s fresh units: %+.4f, p of worse = %.4g", test.units, test.mean, test.p_value)
    if worse is not None and (latest.watch is None or latest.watch.phase != "holdback"):
        with begin_write(database) as connection:
            enqueue(connection, _worse_alert(state.tenant, test, worse, scorecard.night_id, latest.watch))


def _worse_alert(tenant: str, test: Rescore, worse: str, night_id: str, watch: Watch | None) -> Alert:
    """Only the watch of its own holdback takes a champion back by itself; without that, people must hear of it."""
    other = "" if watch is None else f" The open canary of {watch.version} is compared with it, and would end with it."
    return Alert(
        kind="champion_worse",
        severity="critical",
        tenant=tenant,
        title=f"{test.champion} is worse than its predecessor {test.predecessor}",
        text=f"{worse}; {test.metric} {test.mean:+.4f} on {test.units} units that no earlier verdict used. Its "
        f"holdback is over, so it is not taken back by itself.{other}",
        next_step=f'`ratchet rollback --reason "worse when scored again" --to {test.predecessor}`',
        payload=test.model_dump(mode="json") | {"night_id": night_id},
        dedupe_key=f"champion_worse/{tenant}/{night_id}",
    )
