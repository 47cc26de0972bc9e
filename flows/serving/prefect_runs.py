"""Close Prefect's records of runs whose process died: it would show them as running for ever."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

log = logging.getLogger(__name__)


def close_dead_runs(flow_runs: Iterable[str]) -> None:
    """Mark earlier flow runs of a night as crashed. The night's lock is ours, so no process works on them any more."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        for name in flow_runs:
            try:
                run = client.read_flow_run(UUID(name))
            except ObjectNotFound:
                continue
            if run.state is not None and not run.state.is_final():
                log.warning("flow run %s was left behind by a dead process; it is marked as crashed", run.name)
                state: State[Any] = Crashed(message="its process died; a later run took the night up")
                client.set_flow_run_state(UUID(name), state, force=True)
