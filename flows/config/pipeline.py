"""Define the config of one pipeline: one YAML file, composed of the configs of those who use them.

`load_config` reports every mistake at once, each on a line of its own, before any work is done. Read `ratchet.yaml` in
the repository for a commented example, or run `ratchet config schema`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from deploy.canary.policy import CanaryPolicy
from deploy.config import ServingConfig
from evaluation.gate.policy import GatePolicy
from evaluation.job.config import EvaluationConfig
from feedback.ingest.run import IngestConfig
from feedback.quality.drift import DriftConfig
from feedback.snapshots.snapshot import SnapshotConfig
from flows.config.schedule import ScheduleConfig
from infra.alerts.config import AlertsConfig
from infra.errors import UserError
from infra.settings import Config, Places
from infra.telemetry.config import TracesConfig
from training.recipes.plan import TrainingConfig

DEFAULT_FILE = Path("ratchet.yaml")


class PipelineConfig(Config):
    """Everything one pipeline needs to know."""

    pipeline: str = Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")
    """Name of the pipeline: lower-case letters, digits and dashes. Clients ask for it as the model name, and MLflow
    keeps its experiment and registered model under it."""

    base_model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """Model that every version starts from: a folder (relative ones count from this file), or a hub name."""

    tenants: tuple[str, ...] = Field(default=("default",), min_length=1)
    """Tenants that the scheduled runs serve, each with its own data, gate and release."""

    places: Places = Places()
    """Where state is kept and where servers listen."""

    ingest: IngestConfig = IngestConfig()
    """From what users said to the lake: sources, redaction, duplicates, abuse, expectations."""

    snapshot: SnapshotConfig = SnapshotConfig()
    """How the lake is split into training, validation and gate parts."""

    drift: DriftConfig = DriftConfig()
    """When what is new counts as moved away from what the champion was trained on."""

    training: TrainingConfig = TrainingConfig()
    """Which challengers are trained, and within which budget."""

    evaluation: EvaluationConfig = EvaluationConfig()
    """How versions are measured."""

    gate: GatePolicy = GatePolicy()
    """What a challenger must show to go live."""

    serving: ServingConfig = ServingConfig()
    """The engine and the gateway."""

    canary: CanaryPolicy = CanaryPolicy()
    """How a release is watched on live traffic, goes forward, and goes back by itself."""

    traces: TracesConfig = TracesConfig()
    """Whether interactions are shown in MLflow as traces."""

    alerts: AlertsConfig = AlertsConfig()
    """Where alerts go."""

    schedule: ScheduleConfig = ScheduleConfig()
    """When things happen by themselves."""


def tenant_of(config: PipelineConfig, tenant: str | None) -> str:
    """The tenant meant by a name that may be left out where there is one only.

    Raises:
        UserError: an unknown one, or none where there are several.
    """
    if tenant is None and len(config.tenants) == 1:
        return config.tenants[0]
    if tenant is None or tenant not in config.tenants:
        raise UserError(f"got tenant {tenant!r}, expected one of {', '.join(config.tenants)}; name it with --tenant")
    return tenant
