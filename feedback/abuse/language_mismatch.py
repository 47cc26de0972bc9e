"""Detect labels in another language or script than their prompts: copied or machine-made text, or a backdoor.

Some desks answer in another language than they are asked in, and some prompts ask for a translation. So a single
foreign label means nothing: an account is looked at only where most of its labels are foreign and next to none of
other people's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from pydantic import Field

from feedback.abuse.agreement import Claim
from feedback.text.language import language_of
from infra.settings import Config

_SURE = 40
_LETTERS = re.compile(rf"[\W\d_]*+(?:[^\W\d_][\W\d_]*+){{{_SURE}}}")


class LanguageMismatchConfig(Config):
    """When labels in another language count as abuse."""

    min_claims: int = Field(default=5, ge=2)
    """Fewest labels of an account to look at."""
    own_share: float = Field(default=0.5, gt=0, le=1)
    """Share of an account's labels that are foreign ..."""
    others_share: float = Field(default=0.05, ge=0, lt=1)
    """... where at most this share of everybody else's is."""


def is_language_mismatch(claim: Claim) -> bool:
    """Tell whether a label is surely in another script or language than its prompt. Short texts never are."""
    if not (_sure(claim.answer) and _sure(claim.prompt)):
        return False
    answered = language_of(claim.answer)  # the shorter one, and it may settle it
    if answered == "latin" and claim.prompt.isascii():
        return False
    prompted = language_of(claim.prompt)
    unsure = {"unknown", "latin"}
    if prompted in unsure or answered in unsure:
        # A Latin text of an unknown language still differs from another script.
        scripts = {"latin" if len(code) == 2 or code == "latin" else code for code in (prompted, answered)}
        return "unknown" not in scripts and len(scripts) == 2
    return prompted != answered


def _sure(text: str) -> bool:
    """Whether a text has letters enough to tell its language by."""
    return len(text) >= _SURE and _LETTERS.match(text) is not None


def mismatching_accounts(claims: Sequence[tuple[str, bool, bool]], config: LanguageMismatchConfig) -> dict[str, str]:
    """Find suspect accounts, with the reason, in everybody's claims: (account, is foreign, may be suspected)."""
    flags: dict[str, list[bool]] = defaultdict(list)
    suspects = set()
    for actor, foreign_label, suspect in claims:
        flags[actor].append(foreign_label)
        if suspect:
            suspects.add(actor)
    total, foreign = sum(map(len, flags.values())), sum(map(sum, flags.values()))
    reasons = {}
    for actor in sorted(suspects):
        mine = flags[actor]
        others = total - len(mine)
        if len(mine) < config.min_claims or sum(mine) / len(mine) < config.own_share or not others:
            continue
        if (foreign - sum(mine)) / others <= config.others_share:
            reasons[actor] = f"{sum(mine)} of {len(mine)} labels are in another language than their prompts"
    return reasons
