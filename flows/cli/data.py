"""`ratchet data`: look at the lake and its snapshots, cut and export them, keep the lake healthy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, say, table

app = typer.Typer(no_args_is_help=True, help="Look at the lake and its snapshots; keep the lake healthy.")
SnapshotArgument = Annotated[str, typer.Argument(help="Name of a snapshot, or the beginning of it.")]


@app.command("log")
def show_log(
    config: ConfigOption = DEFAULT_CONFIG,
    last: Annotated[int, typer.Option(min=1, help="Only so many batches.")] = 20,
    json: JsonOption = False,
) -> None:
    """The lake's batches, newest first: what each took in, and what became of it."""
    from feedback.lake.lake import lake_of
    from flows.history.lake_view import latest_batches

    batches = latest_batches(lake_of(load(config).places), last)
    if json:
        as_json([batch.model_dump(mode="json") for batch in batches])
        return
    say(f"{len(batches)} batches")
    rows = (
        (
            b.batch,
            b.rows.get("accepted", 0),
            b.rows.get("quarantine", 0),
            _listed(b.counts.get("fates", {})),
        )
        for b in batches
    )
    table(("batch", "accepted", "quarantined", "events"), rows)


@app.command()
def cut(config: ConfigOption = DEFAULT_CONFIG, tenant: TenantOption = None, json: JsonOption = False) -> None:
    """Cut a snapshot of what the lake holds now, as a night would: for `ratchet advise`, or to look at or export.

    The same rows and config give the same snapshot, so cutting again makes no second one.
    """
    from feedback.ingest.run import locked
    from feedback.lake.lake import lake_of
    from feedback.snapshots.snapshot import cut_snapshot
    from flows.config.pipeline import tenant_of

    settings = load(config)
    places, lake = settings.places, lake_of(settings.places)
    with locked(lake):  # somebody may be being forgotten
        made = cut_snapshot(lake, places.snapshots_dir, settings.snapshot, tenant=tenant_of(settings, tenant))
    if json:
        as_json({"id": made.id, "tenant": made.tenant, "counts": made.counts, "removed": made.removed})
        return
    say(made.id)
    for part in ("train", "validation"):
        say(f"{part}: " + (_listed(made.counts[part]) or "nothing"))
    for part in ("rolling", "frozen"):
        say(f"{part} gate: {_listed(made.counts[part])}")
    for reason, number in made.removed.items():
        say(f"left out: {number} ({reason})")


@app.command()
def diff(
    one: SnapshotArgument, other: SnapshotArgument, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False
) -> None:
    """What two snapshots' training rows differ in."""
    from flows.history.lake_view import compare_snapshots, snapshot_named

    places = load(config).places
    changes = compare_snapshots(snapshot_named(places, one), snapshot_named(places, other))
    if json:
        as_json(changes)
        return
    say(f"{changes.first} -> {changes.second}")
    say("added: " + (_listed(changes.added) or "nothing"))
    say("gone: " + (_listed(changes.gone) or "nothing"))
    if changes.moved:
        say(f"between train and validation: {', '.join(changes.moved)}")


@app.command()
def show(
    snapshot: SnapshotArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    rows: Annotated[int, typer.Option(min=0, help="Only so many rows.")] = 5,
) -> None:
    """A snapshot's counts and first training rows, as JSON. Gate items are never shown."""
    from flows.history.lake_view import show_snapshot, snapshot_named

    as_json(show_snapshot(snapshot_named(load(config).places, snapshot), rows))


@app.command()
def export(
    snapshot: SnapshotArgument,
    out: Annotated[Path, typer.Argument(help="File to write: .jsonl or .parquet.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Write a snapshot's training rows to a file."""
    from flows.history.lake_view import export as write
    from flows.history.lake_view import snapshot_named

    counts = write(snapshot_named(load(config).places, snapshot), out)
    if json:
        as_json(counts)
    else:
        say(f"{out}: {_listed(counts)}")


@app.command()
def maintain(
    config: ConfigOption = DEFAULT_CONFIG,
    keep_hours: Annotated[int, typer.Option(min=1, help="Leave files of versions younger than this alone.")] = 168,
    json: JsonOption = False,
) -> None:
    """Put the lake's small files together and remove what no recent version needs. Snapshots are never touched."""
    from feedback.ingest.run import locked
    from feedback.lake.lake import lake_of
    from feedback.lake.maintenance import maintain as care

    lake = lake_of(load(config).places)
    with locked(lake):
        report = care(lake, keep_hours=keep_hours)
    if json:
        as_json(report)
        return
    table(
        ("table", "put together", "removed", "files now"),
        ((name, report.compacted[name], report.removed[name], report.files[name]) for name in report.files),
    )


@app.command()
def validate(
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    last: Annotated[int, typer.Option(min=1, help="Look at so many of the latest rows.")] = 10_000,
    docs: Annotated[Path | None, typer.Option(help="Write Data Docs to this folder.")] = None,
    json: JsonOption = False,
) -> None:
    """Try the expectations on rows that the lake holds already: how many each would hold. Nothing is changed.

    Exit code 1 where an ingest of these rows would stop: an expectation cannot be evaluated, or one stops the run.
    """
    from feedback.lake.lake import lake_of
    from feedback.quality.expectations import evaluate_suite
    from flows.config.pipeline import tenant_of
    from infra.errors import NotFound

    settings = load(config)
    expectations = settings.ingest.expectations
    held = lake_of(settings.places).examples(tenant=tenant_of(settings, tenant))
    examples = sorted(held, key=lambda example: example.created_at)[-last:]
    if not examples:
        raise NotFound("the lake holds no accepted example yet; take feedback in with `ratchet run ingest`")
    found = evaluate_suite(examples, expectations, docs) if expectations.every else []
    rows = [(one.spec.name, one.spec.severity, len(one.rows), one.trouble) for one in found]
    if json:
        names = ("expectation", "severity", "rows", "trouble")
        as_json({"looked_at": len(examples), "found": [dict(zip(names, row, strict=True)) for row in rows]})
    else:
        say(f"{len(examples)} rows looked at")
        table(("expectation", "severity", "rows that break it", ""), rows)
    if any(one.stops for one in found):
        raise typer.Exit(1)


@app.command("contradictions")
def list_contradictions(
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    last: Annotated[int, typer.Option(min=1, help="Only so many pairs.")] = 20,
    json: JsonOption = False,
) -> None:
    """Accepted rows that teach two answers to nearly the same prompt, the latest first."""
    from feedback.duplicates.contradictions import contradictions
    from feedback.lake.lake import lake_of
    from flows.config.pipeline import tenant_of

    settings = load(config)
    found, total = contradictions(lake_of(settings.places), tenant_of(settings, tenant), last=last)
    if json:
        as_json({"total": total, "pairs": [pair.model_dump(mode="json") for pair in found]})
        return
    say(f"{total} pairs of accepted rows contradict each other")
    for pair in found:
        say(f"{pair.shape}: {pair.later.prompt[:200]}")
        for side in (pair.later, pair.earlier):
            stands = ", trusted" if side.trusted else ""
            say(f"  {side.says[:200]}  ({side.example_id} of {side.subject}{stands})")
    if total:
        say("a trusted word on either answer settles it; `ratchet lineage EXAMPLE` says who stands behind a row")


@app.command()
def accept_store(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Have ingests go on although the database was restored and the lake was not; what it lost stays in the lake.

    Ingest refuses such a database. This puts its cursor back to where the two part, so that the next ingest takes in
    what came since the restore, once.
    """
    from feedback.ingest.restored_store import accept_store as accept
    from feedback.lake.lake import lake_of
    from feedback.store.store import Store
    from infra.database.open import open_database

    places = load(config).places
    found = accept(Store(open_database(places)), lake_of(places))
    if json:
        as_json(found)
        return
    say(f"the lake had dealt with feedback up to number {found.cursor_before}; it goes on after number {found.cursor}")
    say(f"{found.waiting} feedback wait for the next ingest (`ratchet run ingest`)")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.items())
