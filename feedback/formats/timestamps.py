"""Read times as other tools write them."""

from __future__ import annotations

from datetime import UTC, datetime


def event_time(value: datetime) -> datetime:
    """Return `value` in UTC; a naive time is taken to be UTC already."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def event_time_of(seconds: float) -> datetime:
    """Return the time so many seconds after the beginning of 1970.

    Raises:
        ValueError: there is no such time, or none before the year 10000.
    """
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:  # which of them depends on how far off the number is
        raise ValueError(f"{seconds!r} s since 1970 is no time ({error})") from None
