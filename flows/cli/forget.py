"""`ratchet forget`: take a person out of everything that is kept, and list who was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, note, say, table

if TYPE_CHECKING:
    from feedback.store.store import Store
    from flows.erasure.report import ErasurePreview, ErasureReport
    from infra.settings import Places


def forget(
    user: Annotated[str | None, typer.Option("--user", help="The user's id as applications send it, or u-...")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    reason: Annotated[str, typer.Option(help="Why; kept with the record.")] = "",
    hashed: Annotated[bool, typer.Option("--hashed", help="The id is a pseudonym already.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and what held it.")] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="Who was forgotten, as hashes; live versions that wait.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Take a person out of store, lake, snapshots, reports and caches for good, prove it, and name what held them."""
    from feedback.store.store import Store
    from flows.cli.run import person
    from flows.config.pipeline import tenant_of
    from flows.erasure.forget import forget as erase
    from flows.erasure.forget import preview_erasure
    from infra.database.open import open_database
    from infra.errors import UserError

    settings = load(config)
    store, whose = Store(open_database(settings.places)), tenant_of(settings, tenant)
    if list_:
        _list_forgotten(settings.places, store, whose, json)
        return
    if user is None:
        raise UserError("no user was named; give --user ID, or --list")
    if dry_run:
        preview = preview_erasure(settings, store, user, tenant=whose, hashed=hashed)
        as_json(preview) if json else _say_preview(preview)
        return
    report = erase(settings, store, user, tenant=whose, by=person(), reason=reason, hashed=hashed, progress=note)
    as_json(report) if json else _say_report(report)
    if report.left:
        raise typer.Exit(1)


def _say_preview(preview: ErasurePreview) -> None:
    _say_held("would forget", preview)
    _say_plan(preview)


def _say_report(report: ErasureReport) -> None:
    _say_held("forgot", report)
    table(("removed from", "rows"), report.removed.items())
    _say_plan(report)
    if report.left:
        say(f"STILL FOUND in {len(report.left)} of {report.searched} files: {', '.join(report.left)}")
    else:
        say(f"searched {report.searched} files: nothing of it is left")
    if report.too_short:
        say(
            f"{report.too_short} of their texts are too short to be told from others' wherever they stand: rows, "
            "reports and Data Docs were cleared of them, logs were not searched"
        )


def _say_held(verb: str, report: ErasurePreview | ErasureReport) -> None:
    counts = f"{report.interactions} interactions, {report.feedback} feedback, {report.rejected_rows} rejected rows"
    say(f"{verb} {report.person}: {counts}")
    say("snapshots that held rows: " + (", ".join(report.snapshots) or "none"))
    say("versions trained on them: " + (", ".join(report.versions) or "none"))


def _say_plan(report: ErasurePreview | ErasureReport) -> None:
    say("what replaces them:")
    for number, line in enumerate(report.plan, 1):
        say(f"  {number}. {line}")


def _list_forgotten(places: Places, store: Store, tenant: str, json: bool) -> None:
    from feedback.store.tombstones import tombstones
    from flows.erasure.replacement import pending

    stones, waiting = tombstones(store.database, tenant), pending(places, store, tenant)
    if json:
        as_json({"forgotten": [stone.model_dump(mode="json") for stone in stones], "waiting": waiting})
        return
    rows = (
        (f"{s.at:%Y-%m-%d %H:%M}", s.person[:12], s.by, sum(s.removed.values()), len(s.snapshots), len(s.versions))
        for s in stones
    )
    table(("when", "person", "by", "rows", "snapshots", "versions"), rows)
    for role, version in waiting.items():
        say(f"{version} ({role}) was trained on somebody who was forgotten; `ratchet run nightly --force` replaces it")
