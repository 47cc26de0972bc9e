"""Build the scorecard from an evaluation's journal. No model is needed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.answers.entries import ANSWERS, PARITY
from evaluation.gate.likeness import barred_likeness
from evaluation.job.config import Candidate, EvaluationJob
from evaluation.job.items import Contamination
from evaluation.job.journal import Journal
from evaluation.run.measure_noise import measure_noise_floors
from evaluation.run.noise_floors import hardware_name
from evaluation.run.questions import Questions
from evaluation.run.score_tables import ScoreTables
from evaluation.run.summaries import summarised
from evaluation.scorecard import JudgeReport, Scorecard, ScoredItem, Table
from evaluation.version_card import Role, VersionCard

if TYPE_CHECKING:
    from feedback.snapshots.gate_items import GateItem


def build_scorecard(
    job: EvaluationJob,
    questions: Questions,
    journal: Journal,
    errors: Mapping[str, str],
    judges: Sequence[JudgeReport],
    contamination: Contamination | None,
) -> Scorecard:
    """Build the scorecard of all finished entries.

    Args:
        errors: version -> why it could not be scored.
        contamination: what training data hold of the items; None when nobody looked.
    """
    items, cards = questions.items, _Cards(job, questions, journal, errors)
    versions = sorted(candidate.version for candidate in job.versions if candidate.version not in errors)
    tables = ScoreTables(job, items, journal, versions)
    measured = [*tables.metrics(), *tables.win_rates(judges)]
    scores = {metric.info.name: metric.by_version for metric in measured}
    regression, regression_infos = tables.regression()
    infos = [*(metric.info for metric in measured), *regression_infos]
    uses = Counter(item.uses for item in items)
    return summarised(
        Scorecard(
            night_id=job.night_id,
            champion=job.champion,
            base=job.base.version,
            items_digest=questions.digest,
            versions=tuple(sorted((cards.card(c) for c in job.versions), key=lambda card: card.version)),
            failed_challengers=tuple(sorted(job.failed_challengers)),
            metrics=tuple(sorted(infos, key=lambda info: info.name)),
            gate=Table(items=tuple(_scored(item) for item in items), scores=scores),
            regression=regression,
            noise=measure_noise_floors(job, items, journal, scores, regression, infos),
            judges=tuple(judges),
            uses={str(times): uses[times] for times in sorted(uses)},
            set_aside=questions.set_aside,
            contaminated_items=contamination.same if contamination is not None else None,
            near_copies=contamination.near if contamination is not None else None,
            hardware=hardware_name(job.threads, job.dtype),
        )
    )


def _scored(item: GateItem) -> ScoredItem:
    assert item.part != "validation", "evaluate has refused validation items"
    return ScoredItem(item_id=item.item_id, group=item.group, part=item.part, uses=item.uses, slices=item.slices)


@dataclass(frozen=True)
class _Cards:
    """Makes the version cards of one evaluation."""

    job: EvaluationJob
    questions: Questions
    journal: Journal
    errors: Mapping[str, str]

    def card(self, candidate: Candidate) -> VersionCard:
        """What was measured of one version beside its per-item values."""
        version, role = candidate.version, self._role(candidate)
        answers = self.journal.entries(ANSWERS, version).values()
        tokens = sum(entry.answer_tokens for entry in answers)
        parity = self.journal.get(PARITY, version)
        size = sum(f.stat().st_size for f in candidate.path.rglob("*") if f.is_file()) if candidate.path else 0
        return VersionCard(
            version=version,
            label=candidate.label,
            role=role,
            kind=candidate.kind,
            digest=candidate.digest,
            recipe=candidate.recipe,
            objective=candidate.objective,
            sft_parent=candidate.sft_parent,
            optimised_against=candidate.optimised_against,
            size_bytes=size,
            items_digest=self.questions.digest if len(answers) == len(self.questions.items) else "",
            answered=len(answers),
            error=self.errors.get(version),
            barred_likeness=self._likeness(candidate) if role == "challenger" else {},
            refused=candidate.refused,
            parity="not_needed" if candidate.path is None else parity.state if parity else "missing",
            parity_error=parity.error if parity else None,
            seconds_per_token=sum(entry.seconds for entry in answers) / tokens if tokens else None,
        )

    def _role(self, candidate: Candidate) -> Role:
        if candidate.version == self.job.champion:
            return "champion"
        if candidate.kind in ("base", "prompt"):
            return "base" if candidate.kind == "base" else "prompt"
        return "reference" if candidate.reference_only else "challenger"

    def _likeness(self, candidate: Candidate) -> dict[str, float]:
        probe = candidate.probe or (candidate.path.parent / "probe.json" if candidate.path else None)
        return barred_likeness(probe, self.job.barred) if probe is not None else {}
