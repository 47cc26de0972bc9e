"""Classify MLflow's refusals: of this one request, or of everything until a person has mended something.

Deleting an experiment or a run on MLflow's page only marks it. It is still found by its name, and everything that is
written to it is refused until it is restored; so is everything when a sign-in expires or a quota is used up. Whoever
took such a refusal for one of the single thing at hand would throw away one thing after the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from infra.alerts.outbox import Alert
from infra.database.connect import now
from infra.errors import Unavailable

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

About = Literal["run", "model", "experiment", "server"]
_DELETED = "deleted"
_GONE = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
_PASSES = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "SERVICE_UNDER_MAINTENANCE")
_PASSES_OF_A_SERVER = ("INTERNAL_ERROR", *_PASSES)  # a client's own errors have the first code where they name none
_NOBODY = ("PERMISSION_DENIED", "PERMISSION_NOT_PROPAGATED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")
_NO_ROOM = ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "RESOURCE_LIMIT_EXCEEDED")
_NOT_HERE = ("ENDPOINT_NOT_FOUND", "FEATURE_DISABLED")


class Refused(Unavailable):
    """MLflow answers, and takes nothing until a person mends what the message names."""

    def __init__(self, message: str, about: About) -> None:
        super().__init__(message)
        self.about: About = about
        """How much of what is to be said is refused."""


class Gone(Exception):
    """The run or experiment that we know the id of is not there any more: removed for good, or another server."""


def did_not_answer(error: Exception) -> bool:
    """Whether the same call may succeed later by itself: no connection, a time-out, a server's fault."""
    from mlflow.exceptions import MlflowException, RestException
    from requests.exceptions import HTTPError

    if isinstance(error, RestException):
        return error.error_code in _PASSES_OF_A_SERVER
    if isinstance(error, MlflowException):
        # MLflow wraps a lost connection, a time-out and a 5xx of a proxy in its plain exception, told by its text.
        lost = "failed with exception" in str(error) or "error code 5" in str(error)
        return lost or error.error_code in _PASSES
    status = _status(error) if isinstance(error, HTTPError) else None
    return status is None or status >= 500 or status in (408, 429)


def of_everything(error: Exception) -> Refused | None:
    """The error as a refusal of the whole server, if it is one: sign-in, permission, quota, a wrong address."""
    code = getattr(error, "error_code", None)
    status = _status(error)
    if code in _NOBODY or status in (401, 403):
        return Refused(
            f"MLflow refuses the user that it is asked as ({one_line(error)}): set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or give that user the permission",
            "server",
        )
    if code in _NO_ROOM or status == 507:
        return Refused(
            f"MLflow has no room left ({one_line(error)}): raise its quota or remove what is not needed", "server"
        )
    if code in _NOT_HERE:
        return Refused(f"at MLflow's address is no MLflow of today ({one_line(error)}): mend the address", "server")
    return None


def expect_experiment(client: MlflowClient, experiment_id: str) -> None:
    """Check that an experiment takes what is written to it.

    Raises:
        Refused: it is deleted.
        Gone: it is not there.
    """
    with _gone():
        entity = client.get_experiment(experiment_id)
    if entity.lifecycle_stage == _DELETED:
        raise deleted_experiment(str(entity.name))


def expect_run(client: MlflowClient, run_id: str) -> None:
    """Check that a run takes what is written to it. Raises as `expect_experiment`."""
    with _gone():
        entity = client.get_run(run_id)
    if entity.info.lifecycle_stage == _DELETED:
        name = entity.info.run_name or run_id
        raise Refused(f"the run {name} is deleted in MLflow (id {run_id}): restore it", "run")


def experiment_refused(url: str, name: str) -> str | None:
    """Why the experiment of that name takes nothing, asked now; None where it does, or is still to be made.

    Raises:
        Unavailable: MLflow does not answer.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from requests.exceptions import RequestException

    try:
        entity = MlflowClient(tracking_uri=url).get_experiment_by_name(name)
    except (MlflowException, RequestException, OSError) as error:
        refused = None if did_not_answer(error) else of_everything(error)
        if refused is not None:
            return str(refused)
        raise Unavailable(f"MLflow at {url} does not answer ({one_line(error)})") from error
    deleted = entity is not None and entity.lifecycle_stage == _DELETED
    return str(deleted_experiment(name)) if deleted else None


def deleted_experiment(name: str) -> Refused:
    """The refusal of an experiment that is deleted."""
    return Refused(f"the experiment {name} is deleted in MLflow: restore it", "experiment")


def refusal_alert(why: str, waits: str) -> Alert:
    """What people are told, once a day for each reason.

    Args:
        why: the refusal in words.
        waits: what does not happen meanwhile, as a sentence.
    """
    return Alert(
        kind="mlflow_refuses",
        severity="warning",
        title=f"MLflow takes nothing: {why.partition(' (')[0]}"[:200],
        text=f"{why[0].upper()}{why[1:]}. {waits}",
        next_step="mend what the text names on MLflow's page or in its settings; what waits then lands by itself",
        dedupe_key=f"mlflow_refuses/{why.partition(' (')[0]}"[:280] + f"/{now():%Y-%m-%d}",
    )


def one_line(error: Exception) -> str:
    """The error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


@contextmanager
def _gone() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in _GONE:
            raise Gone(one_line(error)) from error
        raise


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
