"""Define what a person may ask of one night: the parameters of the Prefect form and of `ratchet run nightly`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from infra.settings import Config


class GateChanges(Config):
    """Changes of the gate's policy for this night only; what is left empty stays as the config says."""

    primary: str | None = None
    """Metric that must improve."""
    minimum_effect: Annotated[float, Field(ge=0)] | None = None
    """Gains up to this size do not count, in the primary metric's units."""
    min_units: Annotated[int, Field(ge=2)] | None = None
    """Fewest units (conversations or users) on which anything is promoted."""
    alpha_night: Annotated[float, Field(gt=0, lt=0.5)] | None = None
    """Error rate of this night, instead of the yearly budget."""
    require_approval: bool | None = None
    """Whether a person must approve a promotion."""

    def given(self) -> dict[str, Any]:
        """Only what was set."""
        return self.model_dump(exclude_none=True)


class NightRequest(Config):
    """One night, on demand. Everything may be left as it is: then the config decides."""

    tenant: str | None = None
    """Tenant to run for; may be left empty when the pipeline has one only."""
    recipes: tuple[str, ...] = ()
    """Recipes to train, such as sft-lora or sft-dpo-lora (`ratchet methods` lists them); empty: as the config says."""
    checkpoints: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{6,64}:[0-9]+$")], ...] = ()
    """Kept checkpoints of earlier stages to examine beside them, each as STAGE_KEY:STEP (`ratchet checkpoints`)."""
    budget_minutes: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Minutes that training may take; empty: as the config says."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Seed of training and evaluation; empty: as the config says."""
    snapshot: str | None = None
    """Name of a snapshot to train and judge on (s-...), such as an earlier night's; empty: tonight's, cut anew."""
    gate: GateChanges = GateChanges()
    """Changes of the gate's policy for this night."""
    dry_run: bool = False
    """Say what the night would train, and for how long, and do nothing."""
    fresh: bool = False
    """Close a night that was interrupted instead of taking it up again, and begin a new one."""
    force: bool = False
    """Train and judge although nothing new came in since the last night."""
    note: str = Field(default="", max_length=500)
    """Why this night was asked for; kept with its record."""


class StoredGateChanges(GateChanges):
    """The same in a night's record, which another release may have written."""

    model_config = ConfigDict(extra="allow")


class StoredRequest(NightRequest):
    """The same in a night's record, which another release may have written."""

    model_config = ConfigDict(extra="allow")

    gate: StoredGateChanges = StoredGateChanges()
    """Changes of the gate's policy for this night."""
