"""`ratchet withdraw`, `pause`, `resume`, `bar`, `unbar`: holding releases up by hand, and letting them go on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, say
from flows.cli.release_commands import Reason

if TYPE_CHECKING:
    from deploy.ledger.ledger import Entry


def withdraw(
    reason: Reason, config: ConfigOption = DEFAULT_CONFIG, tenant: TenantOption = None, json: JsonOption = False
) -> None:
    """End the open canary, or take what answers in shadow away, without a verdict: it is not barred."""
    from deploy.ledger.ledger import current
    from deploy.release.lifecycle import withdraw as take_away

    engine, whose, who = _opened(config, tenant)
    _said(take_away(engine, current(engine, whose), actor=who, reason=reason), json, "{version} is withdrawn")


def pause(
    reason: Reason,
    hours: Annotated[float | None, typer.Option(min=0.0, help="For how long; default: until `ratchet resume`.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """Stop nights from releasing. What is live, or under watch, stays so."""
    from datetime import timedelta

    from deploy.release.lifecycle import pause as stop
    from infra.database.connect import now

    engine, whose, who = _opened(config, tenant)
    until = None if hours is None else now() + timedelta(hours=hours)
    how_long = "until a person resumes" if until is None else f"until {until:%F %T} UTC"
    _said(stop(engine, whose, actor=who, reason=reason, until=until), json, f"promotions are paused {how_long}")


def resume(
    reason: Reason, config: ConfigOption = DEFAULT_CONFIG, tenant: TenantOption = None, json: JsonOption = False
) -> None:
    """Let nights release again after a rollback or a pause."""
    from deploy.release.lifecycle import resume as go_on

    engine, whose, who = _opened(config, tenant)
    _said(go_on(engine, whose, actor=who, reason=reason), json, "promotions go on")


def bar(
    version: Annotated[str, typer.Argument(help="A version that is neither live nor under watch.")],
    reason: Reason,
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """Never release a version, whatever a gate says. What is live is taken back with `ratchet rollback`."""
    from deploy.release.lifecycle import bar as keep_out

    engine, whose, who = _opened(config, tenant)
    _said(keep_out(engine, whose, version, actor=who, reason=reason), json, "{version} is barred")


def unbar(
    version: Annotated[str, typer.Argument(help="A barred version.")],
    reason: Reason,
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """Allow a barred version to be released again."""
    from deploy.release.lifecycle import lift_bar

    engine, whose, who = _opened(config, tenant)
    _said(lift_bar(engine, whose, version, actor=who, reason=reason), json, "{version} may be released again")


def _opened(config: Path, tenant: str | None) -> tuple[Any, str, str]:
    """The database, the tenant that is meant, and who speaks."""
    from flows.cli.run_commands import person
    from flows.config.pipeline import tenant_of
    from infra.database.open import open_database

    settings = load(config)
    return open_database(settings.places), tenant_of(settings, tenant), person()


def _said(entry: Entry, json: bool, text: str) -> None:
    if json:
        as_json(entry)
    else:
        say(f"{text.format(version=entry.version)} (ledger line {entry.seq})")
