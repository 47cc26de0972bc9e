"""Set the environment by which a pipeline reaches its Prefect server. Prefect reads it when it is imported."""

from __future__ import annotations

import httpx

from flows.config.pipeline import PipelineConfig
from infra.errors import UserError
from infra.sign_in import PREFECT_SIGN_IN, prefect_headers

# Whose log lines belong on a run's page.
OUR_PACKAGES = "flows,tasks,deploy,evaluation,training,feedback,infra"


def prefect_environment(config: PipelineConfig) -> dict[str, str]:
    """Environment of every process that uses Prefect. To be set before Prefect is imported."""
    return {
        "PREFECT_API_URL": config.places.prefect_api,
        "PREFECT_HOME": str(config.places.home_dir / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        # No pickle: what a task returns is kept as JSON.
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_LOGGING_EXTRA_LOGGERS": OUR_PACKAGES,
        # Servers use these loggers too, outside of any run.
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "DO_NOT_TRACK": "1",
    }


def require_prefect(config: PipelineConfig) -> None:
    """Raise a UserError unless the pipeline's Prefect server answers."""
    url = config.places.prefect_api
    try:
        # Not its health, which it tells everybody.
        answer = httpx.get(f"{url}/admin/version", headers=prefect_headers(), timeout=10.0, trust_env=False)
    except httpx.HTTPError as error:
        raise UserError(
            f"no Prefect server answers at {url} ({type(error).__name__}); start the stack with `ratchet up`, "
            "or set places.prefect_api_url to a server you run"
        ) from None
    if answer.status_code == 401:
        how = "another one is exported than the server was started with" if prefect_headers() else "it is not set"
        raise UserError(f"{url} refuses our sign-in, which is {PREFECT_SIGN_IN} of the environment: {how}")
    if not answer.is_success:
        raise UserError(f"{url} answered {answer.status_code}, expected a Prefect API; see places.prefect_api_url")
