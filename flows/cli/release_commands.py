"""`ratchet release`, `rollback`, `ledger`: the ledger by hand. No Prefect, no MLflow needed."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, note, say, table

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
    from deploy.controller.run import make_prover
    from deploy.registry.reconcile import grounds_of
    from deploy.release.lifecycle import Override, open_release
    from deploy.versions.versions import find_version
    from flows.cli.run_commands import person
    from flows.config.job_files import controller_job
    from flows.config.pipeline import tenant_of
    from infra.database.open import open_database
    from training.base_model import resolve_base

    settings = load(config)
    whose, engine = tenant_of(settings, tenant), open_database(settings.places)
    base = resolve_base(settings.base_model, settings.places.cache_dir)
    # Looked for first: a slip of the pen is no refusal of the engine, and alerts nobody.
    find_version(settings.places.versions_dir, settings.places.stages_dir, version, base=base.path)
    override = Override(actor=override_by, reason=reason) if override_by is not None else None
    entry = open_release(
        engine,
        whose,
        version,
        versions_dir=settings.places.versions_dir,
        policy=settings.canary,
        prove=make_prover(controller_job(settings, base)),
        shadow_only=settings.serving.upstream_url is not None,
        shared=settings.tenants[0],
        actor=person(),
        gate=None if override else grounds_of(engine, whose, version),
        override=override,
    )
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
    from deploy.controller.run import make_prover
    from deploy.release.lifecycle import roll_back
    from flows.cli.run_commands import person
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
        prove = lambda version: {"version": version, "proved": False}  # noqa: E731
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
