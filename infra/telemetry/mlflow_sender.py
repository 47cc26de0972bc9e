"""Send journals to MLflow, in order, without ever failing a night for MLflow's sake.

While MLflow is down the journal grows and the night goes on; the next call, or the next night, sends the rest. So it
does while MLflow takes nothing for a reason that a person must mend, a deleted experiment, say
(infra/telemetry/mlflow_refusals.py): only what is refused by itself is left out. Operations may be sent twice after a
crash and change nothing then: runs are found by their key before they are made, equal parameters and metric points are
one, artifacts replace themselves.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import Unavailable
from infra.telemetry.mlflow_journal import Journal, journals
from infra.telemetry.mlflow_operations import OpenRun, Operation, Target
from infra.telemetry.mlflow_refusals import (
    Gone,
    Refused,
    did_not_answer,
    expect_experiment,
    expect_run,
    of_everything,
    one_line,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)


class Sender:
    """Sends one journal to one experiment of one MLflow server."""

    def __init__(self, journal: Journal, *, url: str, experiment: str, pause_seconds: float = 30.0) -> None:
        """``pause_seconds``: how long nothing is tried after MLflow did not answer."""
        self.journal = journal
        self.url = url
        self.experiment = experiment
        self.pause_seconds = pause_seconds
        self.refusal: Refused | None = None
        """Why MLflow takes nothing until a person mends it; None while it takes what it is given, or is down."""
        self._not_before = 0.0
        self._warned = ""
        self._started_over = False
        self._client: MlflowClient | None = None
        self._experiment_id: str | None = None

    def send(self, *, now: bool = False) -> int:
        """Send what the journal holds; the number of operations that still wait.

        After a failure nothing is tried for a while (``now`` tries at once), so that a night does not crawl.
        """
        with self.journal.locked():
            return self._send_all(now=now)

    def _send_all(self, *, now: bool) -> int:
        sent, waiting = self.journal.pending()
        if not waiting or (not now and time.monotonic() < self._not_before):
            return len(waiting)
        for done, operation in enumerate(waiting):
            try:
                self._send_one(operation)
            except Gone as error:
                self._start_over(error)
                return self._send_all(now=True)
            except Unavailable as error:
                self._not_before = time.monotonic() + self.pause_seconds
                self._wait_for(error)
                return len(waiting) - done
            sent += 1
            self.journal.set_sent(sent)
        if self._warned:
            log.warning("MLflow at %s answers again: everything that waited was sent", self.url)
        self._warned, self.refusal = "", None
        self.journal.set_refusal(None)
        return 0

    def _wait_for(self, error: Unavailable) -> None:
        """Note why nothing is sent, and say it once."""
        self.refusal = error if isinstance(error, Refused) else None
        if self.refusal is not None:
            self.journal.set_refusal(str(error))
        why = str(error) if self.refusal is not None else "does not answer"
        if why != self._warned:
            log.warning(
                "MLflow at %s %s: the night goes on, what it has to say waits in %s",
                *(self.url, f"takes nothing ({error})" if self.refusal else f"{why} ({error})", self.journal.path),
            )
        self._warned = why

    def _start_over(self, error: Gone) -> None:
        """Send all of it again to runs of their own: what was sent went with the runs that are no more."""
        log.warning(
            "MLflow at %s has lost what it was told (%s): all of %s is sent again", self.url, error, self.journal.path
        )
        self._started_over, self._experiment_id = True, None
        self.journal.runs.forget()
        self.journal.set_sent(0)

    def _send_one(self, operation: Operation) -> None:
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            client, experiment_id = self._connected()
            if operation.run:
                self._apply(operation, client, experiment_id)
        except (MlflowException, RequestException, ConnectionError) as error:
            if did_not_answer(error):
                raise Unavailable(one_line(error)) from error
            try:
                self._look_wider(operation, error)
            except (MlflowException, RequestException, ConnectionError) as other:
                raise of_everything(other) or Unavailable(one_line(other)) from other
            self._leave_out(operation, error)
        except OSError as error:  # an artifact that was there when it was named and is gone now
            self._leave_out(operation, error)

    def _apply(self, operation: Operation, client: MlflowClient, experiment_id: str) -> None:
        """Call MLflow; raises what MLflow raises."""
        runs = self.journal.runs
        if isinstance(operation.body, OpenRun):
            runs.open(client, experiment_id, operation.run, operation.body)
            return
        run_id = runs.find(client, experiment_id, operation.run)
        if run_id is None:
            log.warning("no MLflow run %s to write %s to: left out", operation.run, operation.body.kind)
            return
        operation.body.write(Target(client, experiment_id, run_id))

    def _look_wider(self, operation: Operation, error: Exception) -> None:
        """Tell whether it is this operation that MLflow refuses.

        Raises:
            Refused: it is its run, the experiment or the user, and so all that waits.
            Gone: run or experiment are no more.
        """
        wider = of_everything(error)
        if wider is not None:
            raise wider from error
        if self._client is None or self._experiment_id is None:
            raise Refused(
                f"MLflow does not show the experiment {self.experiment} ({one_line(error)})", "experiment"
            ) from error
        try:
            expect_experiment(self._client, self._experiment_id)
            run = self.journal.runs.get(operation.run)
            if run is not None:
                expect_run(self._client, run)
        except Gone:
            if not self._started_over:  # once is enough: what is refused then is refused by itself
                raise

    def _leave_out(self, operation: Operation, error: Exception) -> None:
        log.warning(
            "MLflow refused %s of run %s, which is left out: %s", operation.body.kind, operation.run, one_line(error)
        )

    def _connected(self) -> tuple[MlflowClient, str]:
        """The client and the experiment's id."""
        if self._client is None:
            # Short patience: the journal is our retry, and a night must not hang on a server that is down.
            for name, value in {
                "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
                "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
                "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            }.items():
                os.environ.setdefault(name, value)
            from mlflow.tracking import MlflowClient

            self._client = MlflowClient(tracking_uri=self.url)
        if self._experiment_id is None:
            self._experiment_id = self.journal.runs.open_experiment(self._client, self.experiment)
        return self._client, self._experiment_id


def send_leftovers(folder: Path, *, url: str, experiment: str) -> int:
    """Send every journal below ``folder`` that earlier nights could not send; how many operations still wait."""
    waiting = 0
    for journal in journals(folder):
        if journal.pending()[1]:
            sender = Sender(journal, url=url, experiment=experiment)
            left = sender.send(now=True)
            waiting += left
            if left and (sender.refusal is None or sender.refusal.about != "run"):
                break  # what keeps this one keeps all
    return waiting
