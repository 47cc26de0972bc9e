"""Where the gate's policy asks for a person: the run pauses with the scorecard, and no answer in time means no."""

from __future__ import annotations

import logging

from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput

from evaluation.gate import Verdict

log = logging.getLogger(__name__)


class Approval(RunInput):
    """The form of the resume button."""

    approved: bool = False
    reviewer: str
    comment: str = ""


def ask_approval(verdict: Verdict, *, hours: float) -> str:
    """Pause the flow run until a person answers; "" when they agree, else the reason why not."""
    text = f"# Release {verdict.winner}?\n\n" + "\n".join(f"- {reason}" for reason in verdict.reasons)
    log.info("waiting up to %g hours for a person to approve the release of %s", hours, verdict.winner)
    try:
        answer = pause_flow_run(
            wait_for_input=Approval.with_initial_data(description=text, reviewer=""),
            timeout=int(hours * 3600),
            poll_interval=5,
        )
    except FlowPauseTimeout:
        return f"nobody approved it within {hours:g} hours, and no answer means no"
    if answer.approved:
        log.info("approved by %s: %s", answer.reviewer, answer.comment)
        return ""
    return f"{answer.reviewer or 'a person'} did not approve it: {answer.comment or 'no comment'}"
