"""`ratchet quarantine` and `ratchet feedback`: what was kept out, and bringing feedback in from files."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, say, table

quarantine = typer.Typer(no_args_is_help=True, help="Look at what was kept out, and decide on it.")
feedback = typer.Typer(no_args_is_help=True, help="Bring feedback in from files.")
RowArgument = Annotated[str, typer.Argument(help="Id of a row, or the beginning of it.")]
CORRECTION = (
    'The corrected value, as JSON: {"text": "..."} for an edit; for a row that could not be read the events that it '
    'should have been, {"interaction": {...}, "feedback": {...}}, as `ratchet quarantine show` prints others.'
)
NoteOption = Annotated[str, typer.Option(help="Why.")]


def _opened(config: Path) -> tuple[Any, Any, Any]:
    from feedback.lake.lake import lake_of
    from feedback.store.store import Store
    from infra.database.open import open_database

    settings = load(config)
    return settings, Store(open_database(settings.places)), lake_of(settings.places)


@quarantine.command("list")
def list_rows(
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    code: Annotated[str | None, typer.Option(help="Only rows kept out for this reason.")] = None,
    last: Annotated[int, typer.Option(min=1, help="Only so many rows.")] = 50,
    json: JsonOption = False,
) -> None:
    """Rows that wait for a decision, those held last first."""
    from feedback.lake.quarantine import held_rows
    from flows.config.pipeline import tenant_of

    settings, store, lake = _opened(config)
    rows = held_rows(store, lake, tenant=None if tenant is None else tenant_of(settings, tenant), code=code)
    if json:
        as_json([row.model_dump(mode="json") for row in rows[:last]])
        return
    more = f", the latest {last} below; --last {len(rows)} shows all" if len(rows) > last else ""
    say(f"{len(rows)} rows in quarantine{more}")
    if rows:
        shown = ((r.row_id[:12], r.tenant, r.step, r.code, r.detail[:80]) for r in rows[:last])
        table(("row", "tenant", "step", "reason", "detail"), shown)


@quarantine.command()
def show(row: RowArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """One row with everything that is known of it, as JSON."""
    from feedback.lake.quarantine import show as find

    _, store, lake = _opened(config)
    as_json(find(store, lake, row))


@quarantine.command()
def accept(
    row: RowArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    note: NoteOption = "",
    correction: Annotated[str | None, typer.Option(help=CORRECTION)] = None,
    json: JsonOption = False,
) -> None:
    """Release a row: its events are taken in by the next ingest, as reviewed by a person."""
    import json as json_module

    from feedback.lake.quarantine import accept as release
    from flows.cli.run_commands import person
    from infra.errors import UserError

    try:
        value = json_module.loads(correction) if correction else None
    except ValueError as error:
        raise UserError(f"--correction is not JSON: {error}") from None
    if value is not None and not isinstance(value, dict):
        raise UserError(f"--correction: got {correction}, expected an object such as " + '{"text": "the right answer"}')
    _, store, lake = _opened(config)
    done = release(store, lake, row, by=person(), note=note, correction=value)
    if json:
        as_json(done)
    else:
        say(f"row {done.row_id[:12]} is released; the next ingest takes it in")


@quarantine.command()
def drop(
    row: RowArgument, config: ConfigOption = DEFAULT_CONFIG, note: NoteOption = "", json: JsonOption = False
) -> None:
    """Decide that a row stays out."""
    from feedback.lake.quarantine import drop as keep_out
    from flows.cli.run_commands import person

    _, store, lake = _opened(config)
    done = keep_out(store, lake, row, by=person(), note=note)
    if json:
        as_json(done)
    else:
        say(f"row {done.row_id[:12]} stays out")


@quarantine.command()
def suspended(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Accounts whose words are not listened to for a while, since they disagreed with everybody."""
    from datetime import UTC, datetime

    from feedback.index.ingest_index import IngestIndex

    _, _, lake = _opened(config)
    with closing(IngestIndex(lake.index_path)) as index:
        found = index.agreement.suspensions()
    rows = [
        (tenant, actor, f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d}", why) for tenant, actor, until, why in found
    ]
    if json:
        as_json([dict(zip(("tenant", "actor", "until", "reason"), row, strict=True)) for row in rows])
    elif rows:
        table(("tenant", "account", "until", "reason"), rows)
    else:
        say("nobody is suspended")


@quarantine.command()
def reinstate(
    actor: Annotated[str, typer.Argument(help="The account, as `ratchet quarantine suspended` names it.")],
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
) -> None:
    """Listen to an account again, with a clean slate; rows of it that were held wait for `accept`."""
    from feedback.index.ingest_index import IngestIndex
    from feedback.ingest.run import locked
    from flows.config.pipeline import tenant_of
    from infra.errors import NotFound

    settings, _, lake = _opened(config)
    name = tenant_of(settings, tenant)
    with locked(lake), closing(IngestIndex(lake.index_path)) as index:
        if not index.agreement.reinstate(name, actor):
            raise NotFound(f"{actor!r} of tenant {name} is not suspended; `ratchet quarantine suspended` lists who is")
    say(f"{actor} is heard again")


@feedback.command("import")
def import_file(
    file: Annotated[str, typer.Argument(help="File, or its URL: JSONL, JSON, CSV, Parquet or text.")],
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would come in and what would not.")] = False,
    map_: Annotated[
        list[str] | None, typer.Option("--map", help="NAME=COLUMN, such as prompt=question; may be repeated.")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="YAML file of such a mapping, one `name: column` a line.")
    ] = None,
    dialect: Annotated[
        str, typer.Option(help="Form of the rows: auto, ratchet, or one that `ratchet methods` lists.")
    ] = "auto",
    file_format: Annotated[str, typer.Option("--format", help="auto, jsonl, json, csv, parquet or text.")] = "auto",
    trusted: Annotated[bool, typer.Option("--trusted", help="Trusted people made it: it may examine models.")] = False,
    hashed_users: Annotated[
        bool, typer.Option("--hashed-users", help="Users in the file are pseudonyms already.")
    ] = False,
    rating_scale: Annotated[float, typer.Option(help="Best possible rating.")] = 5,
    endpoint_url: Annotated[str | None, typer.Option(help="Address of an S3-compatible store.")] = None,
    json: JsonOption = False,
) -> None:
    """Bring a file's feedback into the store; the next ingest takes it in. Importing again changes nothing.

    Exit code 1 where not a row could be read.
    """
    from flows.config.pipeline import tenant_of
    from flows.intake.file_import import import_feedback, mapping_of

    settings, store, _ = _opened(config)
    options = {
        "tenant": tenant_of(settings, tenant),
        "mapping": mapping_of(map_ or [], mapping),
        "dialect": dialect,
        "format": file_format,
        "trusted": trusted,
        "hashed_users": hashed_users,
        "rating_scale": rating_scale,
        "endpoint_url": endpoint_url,
    }
    found = import_feedback(store, file, options=options, shapes=settings.ingest.shapes, dry_run=dry_run)
    if json:
        as_json(found)
    else:
        _say_import(found, dry_run=dry_run)
    counts = found["counts"]
    if counts["rejects"] and not any(number for what, number in counts.items() if what != "rejects"):
        raise typer.Exit(1)  # not a row of it could be read


def _say_import(found: dict[str, Any], *, dry_run: bool) -> None:
    say(("would bring in: " if dry_run else "brought in: ") + _listed(found["counts"]))
    if not dry_run:
        if found["counts"]["rejects"]:
            say("rows that cannot be read go to quarantine with the next ingest: `ratchet quarantine list`")
        return
    say("would make: " + (_listed(found["shapes"]) or "no examples"))
    say("  before an ingest takes out empty and too long texts, future dates, duplicates, abuse, ...")
    if found["set_aside"]:
        say("would set aside: " + _listed(found["set_aside"]))
    for shape, samples in found["samples"].items():
        for sample in samples:
            say(f"  {shape}: " + " | ".join(f"{name}: {text}" for name, text in sample.items()))
    reasons: dict[str, list[str]] = {}
    for reject in found["rejects"]:
        reasons.setdefault(reject["detail"], []).append(reject["place"])
    for detail, places in list(reasons.items())[:20]:
        say(f"{places[0]}: {detail}" + (f" (and {len(places) - 1} more rows)" if len(places) > 1 else ""))
    if len(reasons) > 20:
        say(f"... and rows that cannot be read for {len(reasons) - 20} more reasons")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.items())
