"""`ratchet feedback import`: bring feedback in from files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, say

if TYPE_CHECKING:
    from flows.intake.file_import import Imported, ImportPreview

app = typer.Typer(no_args_is_help=True, help="Bring feedback in from files.")


@app.command("import")
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
    from feedback.store.store import Store
    from flows.config.pipeline import tenant_of
    from flows.intake.file_import import import_feedback, import_options, mapping_of, preview
    from infra.database.open import open_database

    settings = load(config)
    store = Store(open_database(settings.places))
    options = import_options(
        file,
        tenant=tenant_of(settings, tenant),
        mapping=mapping_of(map_ or [], mapping),
        dialect=dialect,
        format=file_format,
        trusted=trusted,
        hashed_users=hashed_users,
        rating_scale=rating_scale,
        endpoint_url=endpoint_url,
    )
    report = preview(store, options, settings.ingest.shapes) if dry_run else import_feedback(store, options)
    if json:
        as_json(report)
    else:
        _say_import(report)
    counts = report.counts
    if counts["rejects"] and not any(number for what, number in counts.items() if what != "rejects"):
        raise typer.Exit(1)  # not a row of it could be read


def _say_import(report: Imported | ImportPreview) -> None:
    say(("would bring in: " if report.dry_run else "brought in: ") + _listed(report.counts))
    if not report.dry_run:
        if report.counts["rejects"]:
            say("rows that cannot be read go to quarantine with the next ingest: `ratchet quarantine list`")
        return
    say("would make: " + (_listed(report.shapes) or "no examples"))
    say("  before an ingest takes out empty and too long texts, future dates, duplicates, abuse, ...")
    if report.set_aside:
        say("would set aside: " + _listed(report.set_aside))
    for shape, samples in report.samples.items():
        for sample in samples:
            say(f"  {shape}: " + " | ".join(f"{name}: {text}" for name, text in sample.items()))
    reasons: dict[str, list[str]] = {}
    for reject in report.rejects:
        reasons.setdefault(reject.detail, []).append(reject.place)
    for detail, places in list(reasons.items())[:20]:
        say(f"{places[0]}: {detail}" + (f" (and {len(places) - 1} more rows)" if len(places) > 1 else ""))
    if len(reasons) > 20:
        say(f"... and rows that cannot be read for {len(reasons) - 20} more reasons")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.items())
