"""Define the schedules: when flows run by themselves."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from infra.settings import Config


class ScheduleConfig(Config):
    """Times of the scheduled runs, and how long a half-done night may be taken up again."""

    nightly: str | None = "0 3 * * *"
    """Cron expression (five fields) of the nightly run; null for no schedule."""

    ingest: str | None = None
    """Cron expression of an extra ingest between nights; null for none. The nightly run ingests anyway."""

    watch: str | None = "*/15 * * * *"
    """Cron expression of the flow that shows canary and drift in Prefect. The controller watches without it."""

    timezone: str = "UTC"
    """Time zone of the cron expressions, such as Europe/Berlin."""

    resume_hours: float = Field(default=20.0, gt=0)
    """A night that was interrupted (machine off, process killed) is taken up again within this many hours; an older one
    is closed as abandoned and a new one begins."""

    attempts: int = Field(default=3, ge=1)
    """How often one night is tried before it is closed as failed."""

    approval_hours: float = Field(default=12.0, gt=0)
    """How long a night waits for a person where the gate's policy asks for approval; then the answer is no."""

    min_new_examples: int = Field(default=1, ge=1)
    """Fewest training examples, new since the last night that judged and of a shape that one of the recipes which may
    run (`training.methods`) learns from, that make a night worth its time. A night on demand with `force` runs anyway;
    one after the champion changed needs new gate items only."""

    night_on_drift: bool = True
    """Whether a night goes on with fewer new examples than that when they have drifted away from what the champion was
    trained on."""

    @field_validator("nightly", "ingest", "watch")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None:
            from cronsim import CronSim, CronSimError

            try:
                next(CronSim(value, datetime.now(ZoneInfo("UTC"))))
            except (CronSimError, StopIteration) as error:
                reason = str(error) or "it never comes true"
                raise ValueError(
                    f"got {value!r}, expected a cron expression of five fields, such as '0 3 * * *' ({reason})"
                ) from None
        return value

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"got {value!r}, expected a time zone name such as UTC or Europe/Berlin") from None
        return value
