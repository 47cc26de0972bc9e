"""`ratchet run nightly|ingest|watch|rollback`: a flow in this process, on the running stack's Prefect server."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, say

if TYPE_CHECKING:
    from deploy.nights.request import NightRequest
    from flows.config.pipeline import PipelineConfig

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, help="Run a flow now.")


@app.command()
def nightly(
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    recipe: Annotated[list[str] | None, typer.Option(help="Train this recipe; may be repeated.")] = None,
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="Examine this kept checkpoint too, as STAGE_KEY:STEP; may be repeated.")
    ] = None,
    budget_minutes: Annotated[
        float | None,
        typer.Option(help="Minutes that training may take; named recipes run anyhow."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of training and evaluation.")] = None,
    snapshot: Annotated[str | None, typer.Option(help="Train and judge on this snapshot.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not take up an interrupted night.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Train although nothing new came in.")] = False,
    note: Annotated[str, typer.Option(help="Why; kept with the night's record.")] = "",
    json: JsonOption = False,
) -> None:
    """Ingest, train challengers, evaluate, gate, release. Takes up a night that was interrupted."""
    settings = load_with_prefect(config)
    from pydantic import ValidationError

    from deploy.nights.request import NightRequest
    from infra.errors import UserError

    try:
        request = NightRequest(
            tenant=tenant,
            recipes=tuple(recipe or ()),
            checkpoints=tuple(checkpoint or ()),
            budget_minutes=budget_minutes,
            seed=seed,
            snapshot=snapshot,
            dry_run=dry_run,
            fresh=fresh,
            force=force,
            note=note,
        )
    except ValidationError as error:
        raise UserError("; ".join(f"--{e['loc'][0]}: {e['msg']}".replace("_", "-") for e in error.errors())) from None
    _check(settings, request)
    from flows.night.dry_run import DryRun
    from flows.nightly import nightly as flow

    result = _run(lambda: flow(request=request, config=str(config)))
    if json:
        as_json(result)
    elif isinstance(result, DryRun):
        say(f"would train {', '.join(result.recipes) or 'nothing'} in about {result.minutes} min")
        if not result.examples_of_last_snapshot:
            say("no snapshot yet: what would be trained is known once there is one (`ratchet data cut`, or a night)")
        else:
            say(
                "by the latest snapshot; the night cuts a new one of all that came since (`ratchet data cut` does, too)"
            )
        say(f"new feedback events since the last ingest: {result.new_feedback_events}")
        for name, reason in result.left_out.items():
            say(f"not {name}: {reason}")
    else:
        say(f"night {result.night_id}: {result.outcome}")


@app.command()
def ingest(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Bring new feedback into the lake."""
    load_with_prefect(config)
    from flows.ingest import ingest as flow

    report = _run(lambda: flow(config=str(config)))
    if json:
        as_json(report)
    else:
        say(report.summary)


@app.command()
def watch(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show in Prefect what is live and how its watch stands."""
    load_with_prefect(config)
    from flows.watch import watch as flow

    report = _run(lambda: flow(config=str(config)))
    if json:
        as_json(report)
    else:
        for tenant, release in report.tenants.items():
            say(f"{tenant}: champion {release.champion}, canary {release.canary or '-'}")


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Why; it stands in the ledger for ever.")],
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    to: Annotated[str | None, typer.Option(help="Version to go back to.")] = None,
    json: JsonOption = False,
) -> None:
    """Take the live version back, as a Prefect run. `ratchet rollback` does it without Prefect."""
    load_with_prefect(config)
    from flows.config.rollback_request import RollbackRequest
    from flows.rollback import rollback as flow

    request = RollbackRequest(tenant=tenant, to=to, reason=reason, actor=person())
    entry = _run(lambda: flow(request=request, config=str(config)))
    if json:
        as_json(entry)
    else:
        say(f"{entry.version} was taken back; {entry.previous} is live")


def person() -> str:
    """Who is at the keyboard."""
    import getpass

    return getpass.getuser()


def load_with_prefect(config: Path) -> PipelineConfig:
    """Load the config, set Prefect's environment before Prefect is imported, and see that its server answers."""
    from flows.config.prefect_environment import prefect_environment, require_prefect

    settings = load(config)
    os.environ.update(prefect_environment(settings))
    require_prefect(settings)
    return settings


def _check(settings: PipelineConfig, request: NightRequest) -> None:
    """What the flow would find out minutes later."""
    from feedback.snapshots.snapshot import load_snapshot
    from flows.config.pipeline import tenant_of
    from infra.errors import UserError
    from training.recipes.built_in import recipe_named

    tenant = tenant_of(settings, request.tenant)
    for name in request.recipes:
        recipe_named(name, settings.training.recipes)
    if request.snapshot is not None:
        named = load_snapshot(settings.places.snapshots_dir / Path(request.snapshot).name)
        if named.tenant != tenant:
            raise UserError(f"snapshot {request.snapshot} is of tenant {named.tenant!r}, expected one of {tenant!r}")


def _run(flow: Callable[[], T]) -> T:
    """Run with Prefect's own output on stderr, so that stdout holds facts only."""
    import contextlib

    with contextlib.redirect_stdout(sys.stderr):
        return flow()
