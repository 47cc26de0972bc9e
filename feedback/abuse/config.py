"""Configure when feedback is held as abuse or poison."""

from __future__ import annotations

from pydantic import Field

from feedback.abuse.language_mismatch import LanguageMismatchConfig
from feedback.abuse.triggers import TriggerConfig
from infra.settings import Config


class AbuseConfig(Config):
    """When feedback is held as abuse or poison."""

    enabled: bool = True
    """Whether to judge at all."""
    window_hours: int = Field(default=24 * 7, ge=1)
    """Over how many hours an account's share is counted."""
    max_share: float = Field(default=0.1, gt=0, le=1)
    """Largest share of the window's feedback one account may have."""
    fair_multiple: float = Field(default=4.0, ge=1)
    """An account may always have this many times the mean of all accounts, however few accounts there are."""
    min_events: int = Field(default=30, ge=1)
    """Accounts with at most this many events in the window are never too much."""
    burst_events: int = Field(default=40, ge=2)
    """More events than this ..."""
    burst_seconds: float = Field(default=10.0, gt=0)
    """... within this many seconds are a burst."""
    near_input: float = Field(default=0.5, gt=0, le=1)
    """Cosine similarity (TF-IDF) from which two prompts are near enough to compare their answers."""
    min_claims: int = Field(default=5, ge=2)
    """Fewest comparable claims of an account, or of a group of accounts, to judge it by."""
    min_references: int = Field(default=20, ge=2)
    """Fewest comparable trusted claims; with fewer the crowd is the reference."""
    reference_pool: int = Field(default=2_000, ge=10)
    """How many of the latest trusted claims are compared with."""
    votes_per_account: int = Field(default=10, ge=1)
    """Claims of one account that count in the crowd."""
    alpha: float = Field(default=0.01, gt=0, lt=0.5)
    """Chance that any account as good as the reference is held for disagreeing, per batch (Bonferroni)."""
    min_gap: float = Field(default=0.3, ge=0, le=1)
    """Smallest difference of mean agreement that matters, however significant."""
    min_accounts: int = Field(default=2, ge=2)
    """Fewest accounts that make a coordinated group."""
    suspend_days: float = Field(default=7.0, ge=0)
    """For how long an account found to disagree is not heard (`ratchet quarantine reinstate` lets it speak sooner)."""
    confidence_rows: int = Field(default=12, ge=2)
    """Labels of a suspicious account that the champion is asked about; three times as many of others' to compare."""
    foreign: LanguageMismatchConfig = LanguageMismatchConfig()
    """When labels in another language than their prompts are held."""
    triggers: TriggerConfig = TriggerConfig()
    """How backdoor triggers are looked for."""
