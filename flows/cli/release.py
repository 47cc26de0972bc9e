"""`ratchet release`, `rollback`, `ledger`, `withdraw`, `pause`, `resume`, `bar`, `unbar`, `drill`: releases by hand.

No Prefect, no MLflow needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, note, say, table

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from deploy.ledger.ledger import Entry
    from deploy.ledger.state import ReleaseState

Reason = Annotated[str, typer.Option(help="Why; it stands in the ledger for ever.")]


def release(
    version: Annotated[str, typer.Argument(help="A version, released before or not: one a night trained will do.")],
    reason: Reason,
    override_by: Annotated[
        str | None, typer.Option(help="Who releases it although no gate passed it; stands in the ledger for ever.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """Open a version's canary: with the gate verdict it has in the ledger, or by a named person's override."""
    from deploy.controller.proving import make_prover
    from deploy.controller.rounds import releases_of
    from deploy.ledger.evidence import Override
    from deploy.registry.reconcile import grounds_of
    from deploy.versions.versions import find_version
    from flows.cli.run import person
    from flows.config.job_files import controller_job
    from flows.config.pipeline import tenant_of
    from infra.database.open import open_database
    from training.base_model import resolve_base

    settings = load(config)
    whose, database = tenant_of(settings, tenant), open_database(settings.places)
    base = resolve_base(settings.base_model, settings.places.cache_dir)
    # Looked for first: a slip of the pen is no refusal of the engine, and alerts nobody.
    find_version(settings.places.versions_dir, settings.places.stages_dir, version, base=base.path)
    override = Override(actor=override_by, reason=reason) if override_by is not None else None
    job = controller_job(settings, base)
    releases = releases_of(database, whose, job, make_prover(job))
    gate = None if override else grounds_of(database, whose, version)
    entry = releases.open(version, actor=person(), gate=gate, override=override)
    if json:
        as_json(entry)
    elif entry.action == "canary":
        say(f"{entry.version} gets {entry.share:.0%} of new users (ledger line {entry.seq})")
    else:
        say(f"{entry.version} answers {entry.share or 0:.0%} of requests in shadow (ledger line {entry.seq})")


def rollback(
    reason: Reason,
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    to: Annotated[str | None, typer.Option(help="Version to go back to; default: the last good one.")] = None,
    json: JsonOption = False,
) -> None:
    """Take back what is under watch, else the champion. It is barred, and nights release nothing meanwhile."""
    from deploy.controller.proving import make_prover
    from deploy.ledger.evidence import Proof
    from deploy.release.rollback import roll_back
    from flows.cli.run import person
    from flows.config.job_files import controller_job
    from flows.config.pipeline import tenant_of
    from infra.database.open import open_database
    from infra.errors import Unavailable
    from training.base_model import resolve_base

    settings = load(config)
    base = resolve_base(settings.base_model, settings.places.cache_dir)
    prove = make_prover(controller_job(settings, base))
    try:
        prove(base.version)
    except Unavailable as error:
        # Going back must work when half the house is on fire; the gateway proves what it loads anyway.
        note(f"warning: {error}; the target is not proved")
        prove = lambda version: Proof(version=version, proved=False)  # noqa: E731
    entry = roll_back(
        open_database(settings.places),
        tenant_of(settings, tenant),
        actor=person(),
        reason=reason,
        to=to,
        pause_seconds=settings.canary.pause_seconds,
        prove=prove,
    )
    if json:
        as_json(entry)
    else:
        say(f"{entry.version} was taken back and is barred; {entry.previous} is live (ledger line {entry.seq})")


def ledger(
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    last: Annotated[int, typer.Option(min=1, help="Only so many lines.")] = 20,
    json: JsonOption = False,
) -> None:
    """The history of releases: what replaced what, when, why, by whom."""
    from deploy.ledger.ledger import history
    from flows.config.pipeline import tenant_of
    from infra.database.open import open_database

    settings = load(config)
    lines = history(open_database(settings.places), tenant_of(settings, tenant))[-last:]
    if json:
        as_json([line.model_dump(mode="json") for line in lines])
    elif not lines:
        say("the ledger is empty: nothing was ever released")
    else:
        table(
            ("line", "when (UTC)", "action", "version", "share", "by", "why"),
            (
                (e.seq, f"{e.at:%Y-%m-%d %H:%M:%S}", e.action, e.version, e.share or "-", e.actor, e.reason[:100])
                for e in lines
            ),
        )


def withdraw(
    reason: Reason, config: ConfigOption = DEFAULT_CONFIG, tenant: TenantOption = None, json: JsonOption = False
) -> None:
    """End the open canary, or take what answers in shadow away, without a verdict: it is not barred."""
    from deploy.ledger.ledger import current
    from deploy.release.lifecycle import withdraw as take_away

    engine, whose, who = _open(config, tenant)
    _say_entry(take_away(engine, current(engine, whose), actor=who, reason=reason), json, "{version} is withdrawn")


def pause(
    reason: Reason,
    hours: Annotated[float | None, typer.Option(min=0.0, help="For how long; default: until `ratchet resume`.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """Stop nights from releasing. What is live, or under watch, stays so."""
    from datetime import timedelta

    from deploy.release.manual_controls import pause as stop
    from infra.database.connect import now

    engine, whose, who = _open(config, tenant)
    until = None if hours is None else now() + timedelta(hours=hours)
    how_long = "until a person resumes" if until is None else f"until {until:%F %T} UTC"
    _say_entry(stop(engine, whose, actor=who, reason=reason, until=until), json, f"promotions are paused {how_long}")


def resume(
    reason: Reason, config: ConfigOption = DEFAULT_CONFIG, tenant: TenantOption = None, json: JsonOption = False
) -> None:
    """Let nights release again after a rollback or a pause."""
    from deploy.release.manual_controls import resume as go_on

    engine, whose, who = _open(config, tenant)
    _say_entry(go_on(engine, whose, actor=who, reason=reason), json, "promotions go on")


def bar(
    version: Annotated[str, typer.Argument(help="A version that is neither live nor under watch.")],
    reason: Reason,
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """Never release a version, whatever a gate says. What is live is taken back with `ratchet rollback`."""
    from deploy.release.manual_controls import bar as keep_out

    engine, whose, who = _open(config, tenant)
    _say_entry(keep_out(engine, whose, version, actor=who, reason=reason), json, "{version} is barred")


def unbar(
    version: Annotated[str, typer.Argument(help="A barred version.")],
    reason: Reason,
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """Allow a barred version to be released again."""
    from deploy.release.manual_controls import lift_bar

    engine, whose, who = _open(config, tenant)
    _say_entry(lift_bar(engine, whose, version, actor=who, reason=reason), json, "{version} may be released again")


def drill(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Prove on the running stack that a rollback works, with a tenant that has no users; exit code 1 if not."""
    from deploy.controller.proving import make_prover
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
        on_progress=note,
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


def drill_version(state: ReleaseState, versions_dir: Path) -> str:
    """The version to drill with: the live one, else any that is there.

    Raises:
        UserError: there is none but the base.
    """
    from deploy.versions.versions import list_versions
    from infra.errors import UserError

    there = list_versions(versions_dir)
    live = [name for name in (state.champion, state.previous) if name in there]
    if not there:
        raise UserError(f"no version in {versions_dir} to drill with; the first night that trains one makes it")
    return live[0] if live and live[0] is not None else there[-1]


def _open(config: Path, tenant: str | None) -> tuple[Engine, str, str]:
    """The database, the tenant that is meant, and who speaks."""
    from flows.cli.run import person
    from flows.config.pipeline import tenant_of
    from infra.database.open import open_database

    settings = load(config)
    return open_database(settings.places), tenant_of(settings, tenant), person()


def _say_entry(entry: Entry, json: bool, text: str) -> None:
    if json:
        as_json(entry)
    else:
        say(f"{text.format(version=entry.version)} (ledger line {entry.seq})")
