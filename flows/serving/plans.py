"""List the deployments, from the config alone: for `ratchet up`, for `ratchet deploy` and for prefect.yaml.

No Prefect here, so that the list can be read, tested and written down without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.config.pipeline import PipelineConfig
from infra.settings import Config


class DeploymentPlan(Config):
    """One deployment: a flow by its module, with its parameters and times."""

    flow: str
    """Module of the flow below flows/, which has a function of the same name."""
    name: str
    """Name of the deployment."""
    parameters: dict[str, Any]
    """Parameters of every run, where the run's form says nothing else."""
    cron: str | None = None
    """When it runs by itself."""
    timezone: str = "UTC"
    """Time zone of `cron`."""
    tags: tuple[str, ...] = ()
    """For finding its runs."""
    description: str = ""
    """What stands above the form."""

    @property
    def entrypoint(self) -> str:
        """The module entrypoint: a path entrypoint would put flows/ first on sys.path for good."""
        return f"flows.{self.flow}.{self.flow}"


_TEXTS = {
    "nightly": "Retrain on what users said, judge the challengers, release the best one if it measurably wins. "
    "Leave the form as it is and the config decides. `dry_run` says what would happen and how long it would take.",
    "ingest": "Bring new feedback into the lake. The nightly run does it anyway.",
    "watch": "Show what is live and how its watch stands, and alert when the controller is silent. It changes nothing.",
    "rollback": "Take the open canary back, else the champion. The version taken back is barred.",
}


def deployment_plans(config: PipelineConfig, config_file: str | Path) -> list[DeploymentPlan]:
    """All deployments of a pipeline, with the times of its config."""
    schedule, file = config.schedule, {"config": str(config_file)}

    def plan(flow: str, name: str, cron: str | None, **parameters: Any) -> DeploymentPlan:
        return DeploymentPlan(
            flow=flow,
            name=name,
            parameters={**file, **parameters},
            cron=cron,
            timezone=schedule.timezone,
            tags=("ratchet", config.pipeline),
            description=_TEXTS[flow],
        )

    nights = [
        plan(
            "nightly",
            config.pipeline if len(config.tenants) == 1 else f"{config.pipeline}-{tenant}",
            schedule.nightly,
            request={"tenant": tenant},
        )
        for tenant in config.tenants
    ]
    return [
        *nights,
        plan("ingest", config.pipeline, schedule.ingest),
        plan("watch", config.pipeline, schedule.watch),
        plan("rollback", config.pipeline, None),
    ]
