"""Show on Prefect's pages what a run did: tables, Markdown and links as artifacts."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from deploy.controller.summary import ReleaseSummary
from deploy.ledger.ledger import Entry
from evaluation.gate.verdict import Verdict
from evaluation.scorecard import Scorecard
from feedback.ingest.run import IngestReport
from feedback.quality.drift import DriftReport
from training.recipes.plan import GUESS, Plan


def text_only(markdown: str) -> str:
    """Escape all HTML in Markdown: Markdown may hold any, and a browser would obey it."""
    return html.escape(markdown, quote=False)


def show_intake(report: IngestReport) -> None:
    """Show a table of what came in, by step and reason."""
    rows = [
        {"step": step, "what": reason, "events": count}
        for step, counts in report.counts.items()
        for reason, count in counts.items()
    ]
    create_table_artifact(
        rows or [{"step": "ingest", "what": "nothing new", "events": 0}],
        key="intake",
        description="What came in, and what became of it.",
    )
    if report.data_docs is not None and (report.data_docs / "index.html").exists():
        show_links({"Data Docs": (report.data_docs / "index.html").absolute().as_uri()})


def show_drift(report: DriftReport) -> None:
    """Show how far inputs have drifted since the champion was trained, column by column."""
    rows: list[dict[str, str]] = [
        {"column": name, "population stability index": f"{value:.3f}"} for name, value in report.columns.items()
    ]
    rows += [
        {"column": name, "population stability index": f"not compared: {why}"} for name, why in report.left_out.items()
    ]
    outcome = "drifted" if report.drifted else "nothing to tell yet" if report.share is None else "no drift"
    create_table_artifact(rows, key="drift", description=f"Against what the champion was trained on: {outcome}.")


def show_durations(seconds: Mapping[str, float]) -> None:
    """Show how long every step took, the longest first."""
    rows = [
        {"step": step, "seconds": f"{spent:.1f}"} for step, spent in sorted(seconds.items(), key=lambda item: -item[1])
    ]
    if rows:
        total = sum(seconds.values())
        create_table_artifact(rows, key="durations", description=f"How long each step took; {total:.0f} s in all.")


def show_plan(plan: Plan, power: str = "") -> None:
    """Show which recipes run tonight, how long they take, why others don't, and what gain the gate could detect."""
    create_markdown_artifact(text_only(plan_page(plan, power)), key="plan", description="Tonight's recipes.")


def plan_page(plan: Plan, power: str) -> str:
    """Write the plan in Markdown.

    Args:
        power: the smallest gain that the gate can detect tonight, in a sentence; "" leaves it out.
    """
    lines = ["# Plan", "", f"About {plan.minutes:.0f} minutes of training.", "", "| recipe | minutes |", "|---|---|"]
    lines += [f"| {estimate.recipe} | {estimate.minutes:.0f} |" for estimate in plan.estimates]
    if plan.guessed:
        lines += ["", f"{GUESS[0].upper()}{GUESS[1:]}."]
    if plan.left_out:
        lines += ["", "Not tonight:", ""] + [f"- {left.recipe}: {left.reason}" for left in plan.left_out]
    if power:
        lines += ["", f"What the gate can tell tonight: {power}."]
    return "\n".join(lines)


def show_scorecard(scorecard: Scorecard) -> None:
    """Show a table with one row per version and one column per metric."""
    means = {(e.version, e.metric): e for e in scorecard.estimates if e.part == "all"}
    rows = []
    for card in scorecard.versions:
        row: dict[str, str] = {"version": card.label, "role": card.role, "name": card.version}
        for metric in scorecard.metrics:
            mean = means.get((card.version, metric.name))
            row[metric.name] = "-" if mean is None else f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]"
        rows.append(row)
    create_table_artifact(rows, key="scorecard", description="All versions on the same items, with 95% intervals.")


def show_verdict(verdict: Verdict, entry: Entry) -> None:
    """Show the verdict in plain words, and what the ledger says of it."""
    words = {"promote": "Promote", "reject": "Reject", "inconclusive": "Inconclusive: the champion stays"}
    lines = [f"# {words[verdict.decision]}", ""]
    lines += [f"- {reason}" for reason in verdict.reasons]
    lines += ["", "| challenger | verdict | gain | 95% interval | p (adjusted) |", "|---|---|---|---|---|"]
    for c in verdict.challengers:
        gain = "-" if c.gain is None else f"{c.gain:+.3f}"
        between = "-" if c.gain_low is None or c.gain_high is None else f"{c.gain_low:+.3f} to {c.gain_high:+.3f}"
        lines.append(f"| {c.label} | {c.decision} | {gain} | {between} | {c.adjusted_p:.3g} |")
    _show_leaderboard(verdict)
    lines += ["", f"Ledger line {entry.seq}: **{entry.action}** {entry.version}. {entry.reason}"]
    create_markdown_artifact(text_only("\n".join(lines)), key="verdict", description="What the gate decided, and why.")


def _show_leaderboard(verdict: Verdict) -> None:
    """Show challengers by their gain, the best first."""
    ranked = sorted(verdict.challengers, key=lambda c: (-(c.gain if c.gain is not None else -math.inf), c.version))
    rows = [
        {
            "place": str(place),
            "challenger": c.label,
            "version": c.version,
            f"gain in {verdict.primary}": "-" if c.gain is None else f"{c.gain:+.3f}",
            "decision": c.decision,
            "why": c.reasons[0] if c.reasons else "",
        }
        for place, c in enumerate(ranked, start=1)
    ]
    create_table_artifact(rows or [{"challenger": "none"}], key="leaderboard", description="Tonight's challengers.")


def show_links(links: Mapping[str, str | None]) -> None:
    """Show links to where to look further."""
    for name, url in links.items():
        if url is not None:
            key = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
            create_link_artifact(link=url, link_text=name, key=key, description=name)


def show_releases(summaries: Mapping[str, ReleaseSummary]) -> None:
    """Show a table of what is live for each tenant."""
    columns = {"champion", "since", "why", "canary", "canary_share", "holdback", "paused"}
    rows = [
        {"tenant": tenant, **{name: str(fact) for name, fact in summary.model_dump(include=columns).items()}}
        for tenant, summary in summaries.items()
    ]
    create_table_artifact(rows, key="standing", description="What is live, since when, and why.")
