"""Sending a run's last words to MLflow, and telling people when it takes nothing until somebody mends it."""

from __future__ import annotations

import logging

from flows.config import PipelineConfig
from infra.mlflow_refusals import refusal_alert
from infra.tracking import Tracker, refusals
from tasks import notify

log = logging.getLogger(__name__)


def send_rest(config: PipelineConfig, tracker: Tracker) -> int:
    """Send what a run still has to say. Returns how many operations wait; people are told where that is not MLflow
    being down."""
    waiting = tracker.send(now=True)
    if waiting and tracker.refusal is None:
        log.warning("MLflow is down; %s operations are kept and sent by the next night", waiting)
    tell_of_refusals(config)
    return waiting


def tell_of_refusals(config: PipelineConfig) -> dict[str, int]:
    """Alert, once a day, for every reason for which MLflow takes nothing from the journals. Returns what was said."""
    found = refusals(config.places.nights_dir)
    for why, waiting in found.items():
        waits = f"{waiting} operations of nights and ingests wait in {config.places.nights_dir}; none is lost."
        notify.alert(config.places, config.alerts, refusal_alert(why, waits))
    return found
