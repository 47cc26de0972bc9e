"""Flush a run's journal to MLflow, and alert people when it takes nothing until somebody mends it."""

from __future__ import annotations

import logging

from flows.config.pipeline import PipelineConfig
from infra.alerts.outbox import Alert
from infra.telemetry.mlflow_journal import refusals
from infra.telemetry.mlflow_refusals import refusal_alert
from infra.telemetry.mlflow_tracker import Tracker
from tasks import notify

log = logging.getLogger(__name__)


def send_rest(config: PipelineConfig, tracker: Tracker) -> int:
    """Send what a run still has to say. Returns how many operations wait; people are told where that is not MLflow
    being down."""
    waiting = tracker.sender.send(now=True)
    if waiting and tracker.sender.refusal is None:
        log.warning("MLflow is down; %s operations are kept and sent by the next night", waiting)
    alert_refusals(config)
    return waiting


def alert_refusals(config: PipelineConfig) -> None:
    """Alert, once a day, for every reason for which MLflow takes nothing from the journals."""
    for alert in refusal_alerts(config):
        notify.alert(config.places, config.alerts, alert)


def refusal_alerts(config: PipelineConfig) -> list[Alert]:
    """Make an alert for every such reason."""
    where = config.places.nights_dir
    return [
        refusal_alert(why, f"{waiting} operations of nights and ingests wait in {where}; none is lost.")
        for why, waiting in refusals(where).items()
    ]
