"""Erase a person from MLflow: traces of what they asked, and copies of reports.

Copies below `places.home` are files like all others (flows/erasure/redact_files.py); those of an MLflow server
elsewhere are fetched, searched, and put back without the person's words.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.erasure.belongings import Belongings
from flows.erasure.redact_files import SCRUBBED, scrub, search
from infra.errors import Unavailable
from infra.settings import Places
from infra.telemetry.interaction_traces import trace_id_of

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_LOT = 100


def forget_traces(places: Places, pipeline: str, belongings: Belongings) -> int:
    """Delete the person's traces, and what they said on others', if any were ever sent. Returns how many there were.

    Raises:
        Unavailable: MLflow does not answer; nothing else is lost, forget again when it does.
    """
    if not (places.home_dir / "traces.json").exists():
        return 0
    names = [_trace_of(name) for name in sorted(belongings.interactions)]
    others = {_trace_of(name) for name in belongings.subjects - belongings.interactions}
    with _client(places.mlflow) as client:
        experiment = client.get_experiment_by_name(pipeline)
        if experiment is None:
            return 0
        lots = [names[start : start + _LOT] for start in range(0, len(names), _LOT)]
        removed = sum(int(client.delete_traces(experiment.experiment_id, trace_ids=lot)) for lot in lots)
        removed += sum(_unsay(client, trace, belongings.person) for trace in sorted(others))
    _rewrite(places.home_dir / "mlflow" / "mlflow.db")
    return removed


def _trace_of(interaction_id: str) -> str:
    return f"tr-{trace_id_of(interaction_id).hex()}"


def _unsay(client: MlflowClient, trace: str, person: str) -> int:
    """Delete what the person said on a trace; how many such there were."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        assessments = client.get_trace(trace).info.assessments or []
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return 0  # not among the share that was sent
        raise
    mine = [a.assessment_id for a in assessments if a.source is not None and a.source.source_id == person]
    for assessment in mine:
        mlflow.delete_assessment(trace_id=trace, assessment_id=assessment)
    return len(mine)


def scrub_copies(places: Places, pipeline: str, belongings: Belongings) -> tuple[dict[str, int], int, list[str]]:
    """(what was removed by file, files searched, files in which something is left) on an MLflow server elsewhere.

    Raises:
        Unavailable: as above.
    """
    removed: dict[str, int] = {}
    searched, left = 0, list[str]()
    if places.mlflow_url is None:
        return removed, searched, left
    with _client(places.mlflow) as client:
        for run in _runs(client, pipeline):
            with tempfile.TemporaryDirectory(prefix="ratchet-forget-") as name:
                folder = Path(name)
                for path in _files(client, run, None):
                    place = folder / Path(path).parent
                    place.mkdir(parents=True, exist_ok=True)
                    client.download_artifacts(run, path, str(place))
                done = scrub(folder, belongings, leave=())
                for path in done:
                    parent = Path(path).parent.as_posix()
                    client.log_artifact(run, str(folder / path), None if parent == "." else parent)
                removed |= {f"mlflow {run}/{path}": count for path, count in done.items()}
                more, there = search(folder, belongings)
                searched += more
                left += [f"{places.mlflow} run {run}: {path}" for path in there]
    return removed, searched, left


@contextmanager
def _client(url: str) -> Iterator[MlflowClient]:
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from requests.exceptions import RequestException

    mlflow.set_tracking_uri(url)
    try:
        yield MlflowClient(url)
    except (MlflowException, RequestException, OSError) as error:
        raise Unavailable(
            f"MLflow at {url} may hold traces or reports of that person and does not answer "
            f"({str(error).splitlines()[0]}); start it and forget again: what was removed stays removed"
        ) from error


def _runs(client: MlflowClient, experiment: str) -> Iterator[str]:
    named = client.get_experiment_by_name(experiment)
    token: Any = None
    while named is not None:
        page = client.search_runs([named.experiment_id], max_results=_LOT, page_token=token)
        yield from (run.info.run_id for run in page)
        token = page.token
        if not token:
            return


def _files(client: MlflowClient, run: str, folder: str | None) -> Iterator[str]:
    """Paths of a run's artifacts that can hold somebody's words."""
    for item in client.list_artifacts(run, folder):
        if item.is_dir:
            yield from _files(client, run, item.path)
        elif Path(item.path).suffix in SCRUBBED:
            yield item.path


def _rewrite(database: Path) -> None:
    """Without the pages of deleted rows, where the server's database is ours."""
    if database.exists():
        with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
