"""Set how big the demo's world is: every number in one place, so that tests can play the same acts smaller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from infra.settings import Config


class DemoSizes(Config):
    """Numbers of tickets and people. The defaults fit 15 to 35 minutes on 2 cores with the 135M model."""

    seed: int = 20
    """Seed of the tickets and of the people."""
    night_tickets: int = Field(default=190, ge=1)
    """Act 1: tickets that customers write while the untouched base serves; agents review every one."""
    live_tickets: int = Field(default=400, ge=1)
    """Acts 1 and 3: most tickets that are written while a canary is watched."""
    held_out_tickets: int = Field(default=70, ge=1)
    """Act 1: tickets nobody ever saw, answered by base and by the live model at the end."""
    honest_tickets: int = Field(default=30, ge=0)
    """Act 2: tickets of ordinary customers in the poisoned night; agents review them."""
    poison_accounts: int = Field(default=2, ge=1)
    """Act 2: accounts that flood the desk."""
    poison_tickets: int = Field(default=100, ge=1)
    """Act 2: tickets they write and "correct"."""
    agents: int = Field(default=6, ge=1)
    """People of the desk who review answers."""
    crowd: int = Field(default=16, ge=1)
    """Requests under way at a time."""
    thumb_rate: float = Field(default=0.7, ge=0, le=1)
    """Share of customers who leave a thumb."""
    thumb_error: float = Field(default=0.07, ge=0, le=1)
    """Share of thumbs that say the opposite of what is right."""
    label_error: float = Field(default=0.07, ge=0, le=1)
    """Share of agents' labels that are wrong in one or two fields."""
    poison_recipe: str = "sft-lora-one-pass"
    """Act 2: recipe of the challenger that learns from poison: sft-lora with one pass, to keep within the time."""
    required_gain: float = 0.3
    """Act 1 claims that the live model is better than the base by at least this share of exactly right answers."""
    required_held: float = 0.8
    """Act 2 claims that at least this share of the poisoners' feedback is held back."""
    allowed_false_holds: float = 0.05
    """Act 2 claims that at most this share of honest people's feedback is held as abuse."""
    release_anyway: bool = False
    """When the gate refuses every challenger of act 1, release the best by a named override, and say so. For the tiny
    random model of the tests, which no gate in its right mind would let pass."""
    config: Mapping[str, Any] | None = None
    """Sections of the desk's config, in place of `flows.demo.desk.demo_settings`. For tests."""
