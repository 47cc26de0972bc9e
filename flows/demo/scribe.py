"""Record one act while it is played, and show its progress on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from flows.demo.facts import ActFacts, Claim, Happening, LedgerLine, ReceivedAlert, Score, Thumbed
from flows.demo.users import Answered
from infra.database.connect import now

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class Bar:
    """The progress bar of one scene. Called, it moves on by one."""

    def __init__(self, progress: Progress, title: str, total: int | None) -> None:
        self._progress = progress
        self._title = title
        self._task = progress.add_task(title, total=total)

    def __call__(self) -> None:
        """One more is done."""
        self._progress.advance(self._task)

    def show(self, detail: str, done: int, total: int | None) -> None:
        """Say what is going on within the scene, and how far it is; no total: nobody knows."""
        self._progress.update(self._task, description=f"{self._title}: {detail}", completed=done, total=total)

    def end(self) -> None:
        """The scene is over: the bar is full, whatever it counted."""
        self._progress.update(self._task, description=self._title, completed=1, total=1)


class Scribe:
    """What one act leaves behind, as it comes."""

    def __init__(self, console: Console, act: int, title: str) -> None:
        self.console = console
        self.act = act
        self.title = title
        self.started = now()
        self.scores: list[Score] = []
        self.thumbs: list[Thumbed] = []
        self.happenings: list[Happening] = []
        self.quarantine: dict[str, int] = {}
        self.quarantined: list[tuple[str, str]] = []
        self.claims: list[Claim] = []
        self.notes: list[str] = []
        self.names: dict[str, str] = {}
        console.rule(f"[bold]Act {act}: {title}")

    @contextmanager
    def scene(self, title: str, total: int | None = None) -> Iterator[Bar]:
        """One stretch of the act, with a progress bar; calling it means that one of `total` is done."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=28), TimeElapsedColumn()]
        if total is not None:
            columns.insert(3, MofNCompleteColumn())
        begin = now()
        with Progress(*columns, console=self.console) as progress:
            bar = Bar(progress, title, total)
            yield bar
            if total is None:
                bar.end()
        self.happenings.append(Happening(at=begin, until=now(), event=title))

    def rated(self, answered: Answered) -> None:
        """Keep a thumb, if there was one."""
        if answered.thumb is not None:
            self.thumbs.append(Thumbed(at=answered.at, version=answered.version, up=answered.thumb))

    def decided(self, at: datetime, title: str) -> None:
        """Something changed who answers."""
        self.happenings.append(Happening(at=at, event=title, decision=True))

    def score(self, label: str, version: str, measured_on: str, right: Sequence[bool]) -> Score:
        """Keep how many of some answers were exactly right."""
        score = Score(label=label, version=version, measured_on=measured_on, right=sum(right), total=len(right))
        self.scores.append(score)
        low, high = score.interval
        self.console.print(
            f"  {label} ({version}) on {measured_on}: {score.right} of {score.total} exactly right, "
            f"{100 * score.share:.0f}% (95% interval {100 * low:.0f} to {100 * high:.0f}%)",
            highlight=False,
        )
        return score

    def note(self, text: str) -> None:
        """Keep a sentence, and say it."""
        self.notes.append(text)
        self.console.print(f"  {text}", highlight=False, markup=False)

    def claim(self, text: str, holds: bool, numbers: str) -> None:
        """Keep whether something came out as it was to be shown, and say so."""
        self.claims.append(Claim(text=text, holds=holds, numbers=numbers))
        mark = "[green]yes[/]" if holds else "[bold red]NO[/]"
        self.console.print(f"  {mark}  {text}: {numbers}", highlight=False)

    def facts(self, *, ledger: Sequence[LedgerLine], alerts: Sequence[ReceivedAlert]) -> ActFacts:
        """The act is over."""
        return ActFacts(
            act=self.act,
            title=self.title,
            started=self.started,
            ended=now(),
            scores=tuple(self.scores),
            thumbs=tuple(sorted(self.thumbs, key=lambda thumb: thumb.at)),
            happenings=tuple(sorted(self.happenings, key=lambda happening: happening.at)),
            quarantine=self.quarantine,
            quarantined=tuple(self.quarantined),
            ledger=tuple(ledger),
            alerts=tuple(alerts),
            claims=tuple(self.claims),
            notes=tuple(self.notes),
            names=self.names,
        )
