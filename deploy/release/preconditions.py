"""Whether a version's release may open now, and which winner waits because its own night could not open it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from deploy.ledger.state import Entry, NotNow, RefusedTransition, Standing
from deploy.ledger.transitions import apply

WAITS = "waits"
"""In the evidence of a held line: its version was refused for a cause that passes."""


def may_open(before: Standing, gated: Entry, *, at: datetime, shadow_only: bool = False) -> None:
    """Refuse a release that may not open on what stands.

    Args:
        gated: the line that would gate it, with the verdict or the override that it rests on as evidence.
        shadow_only: an endpoint outside of Ratchet is champion, so no canary may open.

    Raises:
        NotNow: the cause passes by itself: another watch, a pause, another champion than the one it was compared with.
        RefusedTransition: it does not.
    """
    version = gated.version
    apply(before, gated)
    if before.paused_at(at) and not gated.evidence.get("override"):
        until = f"until {before.paused_until:%F %T} UTC" if before.paused_until else "until a person resumes"
        raise NotNow(f"{version}: promotions are paused {until}; `ratchet resume`, or name an override")
    if shadow_only and before.gated == version:
        raise RefusedTransition(
            f"{version} answers in shadow, and more it cannot: serving.upstream_url stays the champion; "
            "`ratchet withdraw` ends the shadow"
        )
    stale = compared_with_another(gated.evidence, before)
    if stale is not None:
        raise NotNow(f"{version} {stale}; `ratchet run nightly --force` compares it with that one, or name an override")


def compared_with_another(evidence: Mapping[str, Any], before: Standing) -> str | None:
    """Says so where the verdict that a release rests on was on another champion than the live one; not of overrides."""
    champion = (evidence.get("gate") or {}).get("champion")
    if evidence.get("override") or champion in (None, before.champion):
        return None
    return f"was compared with {champion}, but {before.champion} is champion by now"


def still_waits(lines: Sequence[Entry], version: str, *, held: bool) -> bool:
    """Whether the last word on a winner is that it may not open now.

    What was withdrawn, taken back, barred or refused by the engine since waits no longer.

    Args:
        held: whether its night ended, and so wrote a line; one that failed may have left none.
    """
    about = [line for line in lines if line.version == version]
    if not about:
        return not held
    return about[-1].action == "held" and bool(about[-1].evidence.get(WAITS))
