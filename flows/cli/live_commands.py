"""`ratchet why`, `drill`, `shadow`, `arena`: what answers, and whether a rollback would work. Needs no Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, note, say, table

if TYPE_CHECKING:
    from deploy.ledger.ledger import Entry
    from deploy.ledger.state import Standing


def why(
    interaction: Annotated[str, typer.Argument(help="The id that came with the answer.")],
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """Explain one answer: which version gave it, what that was trained on, why it was let in, how it was released."""
    from deploy.explain import explain
    from flows.config.pipeline import tenant_of
    from infra.database.open import open_database

    settings = load(config)
    found = explain(
        open_database(settings.places),
        settings.places.versions_dir,
        tenant_of(settings, tenant),
        interaction,
        shared=settings.tenants[0],
    )
    if json:
        as_json(found)
        return
    say(f"{found.interaction_id} was answered at {found.at} UTC by {found.version}")
    if found.arm is not None:
        say(f"  routing: arm {found.arm}, with chance {found.probability:.0%}; {_line(found.release, 'no release')}")
    if found.gated is not None:
        gate = found.gated.evidence.get("gate") or {}
        override = found.gated.evidence.get("override")
        said = f"override by {override['actor']}: {override['reason']}" if override else str(gate.get("reason"))
        say(f"  let in: {said} (ledger line {found.gated.seq}, scorecard {str(gate.get('scorecard', '-'))[:16]})")
    if found.like_barred is not None:
        say(f"  most like the barred {found.like_barred.version}: likeness {found.like_barred.likeness:.2f}")
    if found.record is not None:
        say(f"  made by: {found.record.name} (key {found.record.key[:16]}, digest {found.record.digest[:16]})")
        for role, parent in found.record.parents.items():
            say(f"  from {role}: {parent[:16]}")
    else:
        say(f"  no record of its making: {found.missing}")
    for entry in found.lines:
        say(f"  {_line(entry, '')}")
    say(f"  feedback on it: {found.feedback}")


def drill(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Prove on the running stack that a rollback works, with a tenant that has no users; exit code 1 if not."""
    from deploy.controller.run import make_prover
    from deploy.ledger.ledger import current
    from deploy.rollback_drill import drill as run
    from flows.config.job_files import controller_job
    from infra.database.open import open_database
    from training.base_model import resolve_base

    settings = load(config)
    engine = open_database(settings.places)
    base = resolve_base(settings.base_model, settings.places.cache_dir)
    version = drill_version(current(engine, settings.tenants[0]), settings.places.versions_dir)
    report = run(
        engine,
        gateway_url=settings.places.gateway_url,
        base_version=base.version,
        version=version,
        versions_dir=settings.places.versions_dir,
        prove=make_prover(controller_job(settings, base)),
        say=note,
    )
    if json:
        as_json({**report.model_dump(mode="json"), "passed": report.passed})
    else:
        say(f"{report.version} was released and taken back; {report.requests} requests, {report.failed} failed")
        say(
            f"  first answer as canary after {report.canary_seconds:.2f} s, as champion {report.champion_seconds:.2f} s"
        )
        say(f"  back on {report.base} after {report.back_seconds:.2f} s, {report.late} late answers")
        say(f"  barred: {'yes' if report.barred else 'NO'}; alert written: {'yes' if report.alerted else 'NO'}")
        say("the drill passed" if report.passed else "THE DRILL FAILED")
    if not report.passed:
        raise typer.Exit(1)


def drill_version(standing: Standing, versions_dir: Path) -> str:
    """The version to drill with: the live one, else any that is there.

    Raises:
        UserError: there is none but the base.
    """
    from deploy.versions.versions import list_versions
    from infra.errors import UserError

    there = list_versions(versions_dir)
    live = [name for name in (standing.champion, standing.previous) if name in there]
    if not there:
        raise UserError(f"no version in {versions_dir} to drill with; the first night that trains one makes it")
    return live[0] if live and live[0] is not None else there[-1]


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
        said = f"median latency {report.latency_ratio:.2f} times, length {report.length_ratio or 0:.2f} times"
        say(f"  {said} what users saw")
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


def _line(entry: Entry | None, without: str) -> str:
    if entry is None:
        return without
    share = f" at {entry.share:.0%}" if entry.share else ""
    return (
        f"line {entry.seq}, {entry.at:%Y-%m-%d %H:%M:%S}: {entry.action}{share} by {entry.actor}: {entry.reason[:160]}"
    )
