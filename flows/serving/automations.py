"""Keep Prefect's automations in sync with the config (`ratchet alerts sync`): made once, updated when they differ.

They act on flow runs that fell silent. Those that people made are left alone: ours are known by the name's beginning.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flows.config.pipeline import PipelineConfig

if TYPE_CHECKING:
    from prefect.automations import Automation

_ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
SILENT_SECONDS = 90
"""A run whose heartbeat (every 30 s) is missing for so long is taken for dead."""


def wanted(config: PipelineConfig) -> list[Automation]:
    """The automations of a pipeline."""
    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture

    name = f"ratchet {config.pipeline}: "
    return [
        Automation(
            name=name + "runs that fell silent are crashed",
            description="A run whose process is gone would be shown as running for ever; the next night takes it up.",
            trigger=EventTrigger(
                after={"prefect.flow-run.heartbeat"},
                expect={"prefect.flow-run.heartbeat"} | _ENDS,
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related={"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{config.pipeline}"},
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=SILENT_SECONDS),
            ),
            actions=[
                ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message="no heartbeat: its process is gone")
            ],
        )
    ]


def sync(config: PipelineConfig) -> dict[str, str]:
    """Bring the server's automations in step; automation -> made, updated or unchanged."""
    from prefect.client.orchestration import get_client

    done = {}
    with get_client(sync_client=True) as client:
        plans = wanted(config)
        names = [automation.name for automation in plans]
        theirs: dict[str, list[Any]] = {}
        for existing in client.request("POST", "/automations/filter", json={}).json():
            if existing["name"].startswith(f"ratchet {config.pipeline}: "):
                theirs.setdefault(existing["name"], []).append(existing)
        for automation in plans:
            earlier = theirs.get(automation.name, [])
            body = automation.model_dump(mode="json", exclude={"id", "owner_resource"})
            for surplus in earlier[1:]:
                client.request("DELETE", "/automations/{id}", path_params={"id": surplus["id"]})
            if not earlier:
                client.request("POST", "/automations/", json=body)
                done[automation.name] = "made"
            elif _differs(earlier[0], body):
                client.request("PUT", "/automations/{id}", path_params={"id": earlier[0]["id"]}, json=body)
                done[automation.name] = "updated"
            else:
                done[automation.name] = "unchanged"
        for name, surplus in theirs.items():
            if name not in names:
                for existing in surplus:
                    client.request("DELETE", "/automations/{id}", path_params={"id": existing["id"]})
                done[name] = "deleted"
    return done


def _differs(theirs: Any, body: Any) -> bool:
    """Whether what stands lacks or changes anything of what is wanted; what the server adds is no difference."""
    if isinstance(body, dict):
        return not isinstance(theirs, dict) or any(
            _differs(theirs.get(key), value) for key, value in body.items() if value is not None
        )
    if isinstance(body, list) and isinstance(theirs, list):
        if all(isinstance(part, str) for part in (*theirs, *body)):
            return sorted(theirs) != sorted(body)
        return len(theirs) != len(body) or any(map(_differs, theirs, body))
    if isinstance(theirs, list) and len(theirs) == 1:
        return _differs(theirs[0], body)
    return bool(theirs != body)
