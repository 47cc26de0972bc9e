"""`ratchet shadow`, `ratchet arena`: compare versions on live traffic. Needs no Prefect."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, say, table


def shadow(
    version: Annotated[str | None, typer.Argument(help="Default: the version in shadow now.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    judge: Annotated[bool, typer.Option("--judge", help="Have the configured judge compare 50 pairs, blind.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare what a version said in shadow with what users saw, on the same requests."""
    from deploy.controller.rollback_review import judge_of
    from deploy.experiments.shadow import compare
    from deploy.ledger.ledger import current
    from flows.config.pipeline import tenant_of
    from infra.database.open import open_database
    from infra.errors import UserError

    settings = load(config)
    engine, whose = open_database(settings.places), tenant_of(settings, tenant)
    named = version or current(engine, whose).shadow
    if named is None:
        raise UserError("no version answers in shadow now; name one, or set canary.shadow_share for the next release")
    prefer = judge_of(settings.evaluation.judges, settings.places.home_dir / "judge-cache") if judge else None
    if judge and prefer is None:
        raise UserError("no judge in evaluation.judges works without a reference; configure one, such as openai")
    report = compare(engine, whose, named, prefer=prefer)
    if json:
        as_json(report)
        return
    say(f"{report.version} in shadow: {report.copies} copies, {report.failed} failed, {report.same} the same answer")
    if report.latency_ratio is not None:
        ratios = f"median latency {report.latency_ratio:.2f} times, length {report.length_ratio or 0:.2f} times"
        say(f"  {ratios} what users saw")
    if report.win_rate is not None:
        say(f"  preferred in {report.win_rate:.0%} of {report.judged} judged pairs")


def arena(config: ConfigOption = DEFAULT_CONFIG, tenant: TenantOption = None, json: JsonOption = False) -> None:
    """Show how versions did against one another in the arena's blind choices."""
    from deploy.experiments.arena import tally
    from flows.config.pipeline import tenant_of
    from infra.database.open import open_database

    settings = load(config)
    rows = tally(open_database(settings.places), tenant_of(settings, tenant))
    if json:
        as_json([row.model_dump(mode="json") for row in rows])
    elif not rows:
        say("nobody has compared two versions yet (POST /v1/arena, or the console)")
    else:
        table(
            ("version", "against", "won", "lost", "tied", "open"),
            ((row.version, row.against, row.wins, row.losses, row.ties, row.open) for row in rows),
        )
