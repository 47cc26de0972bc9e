"""Report the demo: a table in the terminal and a page that can be mailed around."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flows.demo.facts import ActFacts, Score
from infra.artifact import atomic_write

if TYPE_CHECKING:
    from rich.console import Console

_TEMPLATE = Path(__file__).with_name("report.html.jinja")


def write_report(path: Path, acts: Sequence[ActFacts], *, base: str, urls: Mapping[str, str]) -> Path:
    """Write the self-contained HTML page: no script, no link to anything but the running stack."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    from flows.demo import plots

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # Our own drawings: matplotlib escapes the texts in them.
    pictures = {
        act.act: [(on, scores, Markup(plots.accuracy(scores))) for on, scores in _by_measure(act)]  # noqa: S704
        for act in acts
    }
    page = environment.from_string(_TEMPLATE.read_text()).render(
        acts=acts,
        base=base,
        seconds=_duration(acts),
        pictures=pictures,
        thumbs=Markup(plots.thumbs(acts)),  # noqa: S704
        timeline=Markup(plots.timeline(acts)),  # noqa: S704
        ledger=acts[-1].ledger if acts else (),
        urls=dict(urls),
        percent=percent,
        clock=clock,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, page)
    return path


def print_report(console: Console, acts: Sequence[ActFacts], *, page: Path, urls: Mapping[str, str]) -> None:
    """Print what was found: accuracies, claims, and where to look."""
    from rich.table import Table

    scores = Table(title="Exactly right answers", title_justify="left")
    for heading in ("act", "measured on", "who", "version"):
        scores.add_column(heading)
    scores.add_column("right", justify="right")
    scores.add_column("95% interval", justify="right")
    for act in acts:
        for score in act.scores:
            low, high = score.interval
            scores.add_row(
                str(act.act),
                score.measured_on,
                score.label,
                score.version,
                f"{percent(score.share)} of {score.total}",
                f"{percent(low)} to {percent(high)}",
            )
    console.print(scores)
    claims = Table(title="What was to be shown", title_justify="left")
    for heading in ("act", "claim", "came out so", "found"):
        claims.add_column(heading, overflow="fold")
    for act in acts:
        for claim in act.claims:
            claims.add_row(
                str(act.act), claim.text, "[green]yes[/]" if claim.holds else "[bold red]no[/]", claim.numbers
            )
    console.print(claims)
    for name, url in urls.items():
        console.print(f"  {name:<10} {url}", highlight=False)
    console.print(f"  {'report':<10} {page.absolute().as_uri()}", highlight=False)


def percent(share: float) -> str:
    """A share of 1 for people."""
    return f"{100 * share:.0f}%"


def clock(at: datetime) -> str:
    """A moment for people (UTC)."""
    return at.strftime("%H:%M:%S")


def _by_measure(act: ActFacts) -> list[tuple[str, list[Score]]]:
    grouped: dict[str, list[Score]] = {}
    for score in act.scores:
        grouped.setdefault(score.measured_on, []).append(score)
    return list(grouped.items())


def _duration(acts: Sequence[ActFacts]) -> str:
    if not acts:
        return "0 s"
    seconds = sum((act.ended - act.started).total_seconds() for act in acts)
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"
