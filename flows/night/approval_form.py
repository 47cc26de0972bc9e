"""Pause a flow run until a person approves the release; no answer in time means no."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput

from evaluation.gate.verdict import Verdict
from tasks.reporting.prefect_artifacts import text_only

log = logging.getLogger(__name__)


class Approval(RunInput):
    """The form of the resume button."""

    approved: bool = False
    reviewer: str
    comment: str = ""


def ask_approval(
    verdict: Verdict, *, hours: float, links: Mapping[str, str | None] | None = None, poll_seconds: int = 5
) -> str | None:
    """Pause the flow run until a person answers; return None when they agree, else the reason why not.

    Args:
        hours: how long; then the answer is no.
        links: name -> URL of where the whole scorecard is.
        poll_seconds: how often Prefect is asked for the answer.
    """
    log.info("waiting up to %g hours for a person to approve the release of %s", hours, verdict.winner)
    try:
        answer = pause_flow_run(
            wait_for_input=Approval.with_initial_data(
                description=text_only(approval_page(verdict, links or {})), reviewer=""
            ),
            timeout=max(1, int(hours * 3600)),
            poll_interval=poll_seconds,
        )
    except FlowPauseTimeout:
        return f"nobody approved it within {hours:g} hours, and no answer means no"
    if answer.approved:
        log.info("approved by %s: %s", answer.reviewer, answer.comment)
        return None
    return f"{answer.reviewer or 'a person'} did not approve it: {answer.comment or 'no comment'}"


def approval_page(verdict: Verdict, links: Mapping[str, str | None]) -> str:
    """Write what the form shows: the verdict, every challenger's numbers, and links to the whole scorecard."""
    lines = [f"# Release {verdict.winner}?", "", *(f"- {reason}" for reason in verdict.reasons), ""]
    lines += [f"| challenger | verdict | gain in {verdict.primary} | 95% interval | units |", "|---|---|---|---|---|"]
    for c in verdict.challengers:
        gain = "-" if c.gain is None else f"{c.gain:+.4f}"
        between = "-" if c.gain_low is None or c.gain_high is None else f"{c.gain_low:+.4f} to {c.gain_high:+.4f}"
        lines.append(f"| {c.label} | {c.decision} | {gain} | {between} | {c.units} |")
    lines += ["", *(f"[{name}]({url})" for name, url in links.items() if url), ""]
    lines.append("The page of the scorecard is `evaluation/report.html` there. No answer in time means no.")
    return "\n".join(lines)
