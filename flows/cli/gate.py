"""`ratchet gate replay|schema`, `compare`, `approve`, `decline`: replay verdicts, compare, approve a release."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, say, table

if TYPE_CHECKING:
    from deploy.nights.record import NightRecord
    from flows.config.pipeline import PipelineConfig

app = typer.Typer(no_args_is_help=True, help="Look at verdicts again.")
NightArgument = Annotated[str | None, typer.Argument(help="Name of a night; may be left out for the last one.")]
CommentOption = Annotated[str, typer.Option(help="Why; it is kept with the night's record.")]


@app.command()
def replay(
    night: NightArgument = None,
    policy: Annotated[Path | None, typer.Option(help="YAML with the gate's keys; default: the night's own.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """What another policy would have decided, from the night's stored items. No model runs; nothing is released."""
    from deploy.nights.steps import VERDICT
    from evaluation.gate.replay import replay as decide_again
    from flows.config.pipeline import tenant_of
    from flows.history.stored_nights import evaluated_night, policy_of, read_policy

    settings = load(config)
    record = evaluated_night(settings, tenant_of(settings, tenant), night)
    rules = policy_of(record) if policy is None else read_policy(policy)
    verdict = decide_again(settings.places.evaluations_dir / record.night_id, rules)
    if json:
        as_json(verdict)
        return
    then = record.result(VERDICT)
    decided = f"{then.decision} {then.winner or ''}" if then else "nothing"
    say(f"night {record.night_id} decided: {decided}".rstrip())
    say(f"this policy decides: {verdict.decision} {verdict.winner or ''}".rstrip())
    for reason in verdict.reasons:
        say(f"- {reason}")


@app.command()
def schema() -> None:
    """Print the JSON schema of scorecard.json."""
    from evaluation.scorecard import Scorecard

    as_json(Scorecard.model_json_schema())


def compare(
    a: Annotated[str, typer.Argument(help="A version, a label of one, or champion or base.")],
    b: Annotated[str, typer.Argument(help="The version it is compared with.")],
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """Any two versions on the same items: paired differences with 95% intervals, from stored results.

    Versions that no night measured together are compared on the items that their two nights share.
    """
    from evaluation.gate.comparison import compare_versions
    from flows.config.pipeline import tenant_of
    from flows.history.stored_nights import scorecard_with

    settings = load(config)
    scorecard, one, other = scorecard_with(settings, tenant_of(settings, tenant), a, b)
    rows = compare_versions(scorecard, one, other)
    if json:
        metrics = [row.model_dump(mode="json") for row in rows]
        as_json({"night_id": scorecard.night_id, "a": one, "b": other, "metrics": metrics})
        return
    items, nights = len(scorecard.gate.items), scorecard.night_id or "-"
    say(f"{one} against {other}, {items} items of {nights}; p-values are one-sided and not corrected")
    table(
        ("metric", "better is", "a", "b", "a - b", "95% interval", "units", "p better", "p worse"),
        (
            (
                row.metric,
                row.direction,
                f"{row.a:.4f}",
                f"{row.b:.4f}",
                f"{row.difference:+.4f}",
                f"{row.low:+.4f} to {row.high:+.4f}",
                row.units,
                "-" if row.p_better is None else f"{row.p_better:.3g}",
                "-" if row.p_worse is None else f"{row.p_worse:.3g}",
            )
            for row in rows
        ),
    )


def approve(
    night: NightArgument = None,
    comment: CommentOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """Say yes to the release that a night waits with. Its canary opens; it is still watched."""
    _answer(night, True, comment, config, tenant, json)


def decline(
    night: NightArgument = None,
    comment: CommentOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """Say no to the release that a night waits with. The champion stays."""
    _answer(night, False, comment, config, tenant, json)


def _answer(name: str | None, approved: bool, comment: str, config: Path, tenant: str | None, json: bool) -> None:
    from flows.cli.run import person
    from flows.config.pipeline import tenant_of
    from flows.config.prefect_environment import prefect_environment, require_prefect
    from flows.night.approval import answer, night_awaiting_answer

    settings = load(config)
    night = night_awaiting_answer(settings, tenant_of(settings, tenant), name)
    os.environ.update(prefect_environment(settings))  # before anything imports Prefect, which reads it then
    require_prefect(settings)
    if not json:
        _show_verdict(settings, night)
    answered = answer(night, approved=approved, reviewer=person(), comment=comment)
    if json:
        as_json(answered)
    else:
        say(f"night {answered.night_id}: {'approved' if approved else 'declined'} by {answered.reviewer}")


def _show_verdict(settings: PipelineConfig, night: NightRecord) -> None:
    """What the answer is about, before it is given: verdict, numbers, and where the whole scorecard is."""
    from deploy.nights.steps import VERDICT
    from flows.night.approval_form import approval_page

    verdict = night.result(VERDICT)
    if verdict is not None:
        page = settings.places.evaluations_dir / night.night_id / "report.html"
        links = {"scorecard": page.as_uri()} if page.exists() else {}
        say(approval_page(verdict, links))
