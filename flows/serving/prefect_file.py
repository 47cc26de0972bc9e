"""Write prefect.yaml for people who deploy with Prefect's own command: made from the plans, with no second list.

RATCHET_CONFIG=/srv/ratchet.yaml RATCHET_POOL=local RATCHET_ROOT=/srv/ratchet prefect deploy --all
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from flows.config.load import load_config
from flows.serving.plans import deployment_plans

_HEAD = """\
# Made by `python -m tools.reference.reference` from ratchet.yaml; edits here are lost. `ratchet deploy` does the same,
# and makes the work pool too.
#
#   export PREFECT_API_AUTH_STRING="$(ratchet sign-in prefect)"
#   export RATCHET_ROOT=$PWD RATCHET_CONFIG=$PWD/ratchet.yaml RATCHET_POOL=local
#   prefect work-pool create local --type process
#   prefect deploy --all
#   prefect worker start --pool local
"""


def prefect_yaml(root: Path) -> str:
    """The file's text, with the deployments of the example config."""
    config = load_config(root / "ratchet.yaml")
    plans = deployment_plans(config, "{{ $RATCHET_CONFIG }}")
    value: dict[str, Any] = {
        "name": "ratchet",
        "pull": [{"prefect.deployments.steps.set_working_directory": {"directory": "{{ $RATCHET_ROOT }}"}}],
        "deployments": [
            {
                "name": plan.name,
                "entrypoint": plan.entrypoint,
                "description": plan.description,
                "tags": list(plan.tags),
                "parameters": plan.parameters,
                "concurrency_limit": {"limit": 1, "collision_strategy": "CANCEL_NEW"},
                "work_pool": {
                    "name": "{{ $RATCHET_POOL }}",
                    "job_variables": {"env": {"PYTHONPATH": "{{ $RATCHET_ROOT }}"}},
                },
                "schedules": [{"cron": plan.cron, "timezone": plan.timezone, "slug": plan.flow, "active": True}]
                if plan.cron
                else [],
            }
            for plan in plans
        ],
    }
    return _HEAD + yaml.safe_dump(value, sort_keys=False, width=110)
