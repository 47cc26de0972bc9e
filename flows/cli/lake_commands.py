"""`ratchet data`, `ratchet lineage` and `ratchet forget`: what is kept, where it came from, and taking it away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, note, say, table

data = typer.Typer(no_args_is_help=True, help="Look at the lake and its snapshots; keep the lake healthy.")
SnapshotArgument = Annotated[str, typer.Argument(help="Name of a snapshot, or the beginning of it.")]


@data.command("log")
def show_log(
    config: ConfigOption = DEFAULT_CONFIG,
    last: Annotated[int, typer.Option(min=1, help="Only so many batches.")] = 20,
    json: JsonOption = False,
) -> None:
    """The lake's batches, newest first: what each took in, and what became of it."""
    from feedback.lake.lake import lake_of
    from flows.history.lake_view import log_of

    batches = log_of(lake_of(load(config).places), last)
    if json:
        as_json(batches)
        return
    say(f"{len(batches)} batches")
    rows = (
        (
            b["batch"],
            b["rows"].get("accepted", 0),
            b["rows"].get("quarantine", 0),
            _listed(b["counts"].get("fates", {})),
        )
        for b in batches
    )
    table(("batch", "accepted", "quarantined", "events"), rows)


@data.command()
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


@data.command()
def diff(
    one: SnapshotArgument, other: SnapshotArgument, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False
) -> None:
    """What two snapshots' training rows differ in."""
    from flows.history.lake_view import difference, snapshot_named

    places = load(config).places
    found = difference(snapshot_named(places, one), snapshot_named(places, other))
    if json:
        as_json(found)
        return
    say(f"{found['from']} -> {found['to']}")
    say("added: " + (_listed(found["added"]) or "nothing"))
    say("gone: " + (_listed(found["gone"]) or "nothing"))
    if found["moved"]:
        say(f"between train and validation: {', '.join(found['moved'])}")


@data.command()
def show(
    snapshot: SnapshotArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    rows: Annotated[int, typer.Option(min=0, help="Only so many rows.")] = 5,
) -> None:
    """A snapshot's counts and first training rows, as JSON. Gate items are never shown."""
    from flows.history.lake_view import shown, snapshot_named

    as_json(shown(snapshot_named(load(config).places, snapshot), rows))


@data.command()
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


@data.command()
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


@data.command()
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


@data.command("contradictions")
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


def lineage(
    name: Annotated[
        str, typer.Argument(help="Id of an answer, event, example, snapshot or version; or a ledger line's number.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """What something was made of, and what became of it."""
    from feedback.store.store import Store
    from flows.config.pipeline import tenant_of
    from flows.history.lineage import lineage as trace
    from infra.database.open import open_database

    settings = load(config)
    found = trace(settings.places, Store(open_database(settings.places)), name, tenant=tenant_of(settings, tenant))
    if json:
        as_json(found)
        return
    say(f"{found.kind} {found.name}")
    for title, links in (("made of", found.made_of), ("became", found.became)):
        say(f"{title}:" + ("" if links else " nothing that is known"))
        for link in links:
            say(f"  {link.kind} {link.name}" + (f"  ({link.note})" if link.note else ""))


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
    from flows.cli.run_commands import person
    from flows.config.pipeline import tenant_of
    from flows.erasure.forget import forget as take_away
    from infra.database.open import open_database
    from infra.errors import UserError

    settings = load(config)
    store, whose = Store(open_database(settings.places)), tenant_of(settings, tenant)
    if list_:
        _list_forgotten(settings.places, store, whose, json)
        return
    if user is None:
        raise UserError("no user was named; give --user ID, or --list")
    found = take_away(
        settings, store, user, tenant=whose, by=person(), reason=reason, hashed=hashed, dry_run=dry_run, progress=note
    )
    if json:
        as_json(found)
    else:
        _say_forgotten(found)
    if found.get("left"):
        raise typer.Exit(1)


def _say_forgotten(found: dict[str, Any]) -> None:
    verb = "would forget" if found["dry_run"] else "forgot"
    what = [f"{found[name]} {name}" for name in ("interactions", "feedback", "rejected rows")]
    say(f"{verb} {found['person']}: {', '.join(what)}")
    say("snapshots that held rows: " + (", ".join(found["snapshots"]) or "none"))
    say("versions trained on them: " + (", ".join(found["versions"]) or "none"))
    if not found["dry_run"]:
        table(("removed from", "rows"), found["removed"].items())
    say("what replaces them:")
    for number, line in enumerate(found["plan"], 1):
        say(f"  {number}. {line}")
    if found["dry_run"]:
        return
    if found["left"]:
        say(f"STILL FOUND in {len(found['left'])} of {found['searched']} files: {', '.join(found['left'])}")
    else:
        say(f"searched {found['searched']} files: nothing of it is left")
    if found["too short"]:
        say(
            f"{found['too short']} of their texts are too short to be told from others' wherever they stand: rows, "
            "reports and Data Docs were cleared of them, logs were not searched"
        )


def _list_forgotten(places: Any, store: Any, tenant: str, json: bool) -> None:
    from feedback.store.tombstones import tombstones
    from flows.erasure.forget import pending

    stones, waiting = tombstones(store.engine, tenant), pending(places, store, tenant)
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


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.items())
