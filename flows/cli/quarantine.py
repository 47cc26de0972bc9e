"""`ratchet quarantine`: look at what was kept out of the lake, and decide on it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, say, table

if TYPE_CHECKING:
    from feedback.lake.lake import Lake
    from feedback.store.store import Store
    from flows.config.pipeline import PipelineConfig

app = typer.Typer(no_args_is_help=True, help="Look at what was kept out, and decide on it.")
RowArgument = Annotated[str, typer.Argument(help="Id of a row, or the beginning of it.")]
CORRECTION = (
    'The corrected value, as JSON: {"text": "..."} for an edit; for a row that could not be read the events that it '
    'should have been, {"interaction": {...}, "feedback": {...}}, as `ratchet quarantine show` prints others.'
)
NoteOption = Annotated[str, typer.Option(help="Why.")]


def _load(config: Path) -> tuple[PipelineConfig, Store, Lake]:
    from feedback.lake.lake import lake_of
    from feedback.store.store import Store
    from infra.database.open import open_database

    settings = load(config)
    return settings, Store(open_database(settings.places)), lake_of(settings.places)


@app.command("list")
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

    settings, store, lake = _load(config)
    rows = held_rows(store, lake, tenant=None if tenant is None else tenant_of(settings, tenant), code=code)
    if json:
        as_json([row.model_dump(mode="json") for row in rows[:last]])
        return
    more = f", the latest {last} below; --last {len(rows)} shows all" if len(rows) > last else ""
    say(f"{len(rows)} rows in quarantine{more}")
    if rows:
        shown = ((r.row_id[:12], r.tenant, r.step, r.code, r.detail[:80]) for r in rows[:last])
        table(("row", "tenant", "step", "reason", "detail"), shown)


@app.command()
def show(row: RowArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """One row with everything that is known of it, as JSON."""
    from feedback.lake.quarantine import show as find

    _, store, lake = _load(config)
    as_json(find(store, lake, row))


@app.command()
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
    from flows.cli.run import person
    from infra.errors import UserError

    try:
        value = json_module.loads(correction) if correction else None
    except ValueError as error:
        raise UserError(f"--correction is not JSON: {error}") from None
    if value is not None and not isinstance(value, dict):
        raise UserError(f"--correction: got {correction}, expected an object such as " + '{"text": "the right answer"}')
    _, store, lake = _load(config)
    done = release(store, lake, row, by=person(), note=note, correction=value)
    if json:
        as_json(done)
    else:
        say(f"row {done.row_id[:12]} is released; the next ingest takes it in")


@app.command()
def drop(
    row: RowArgument, config: ConfigOption = DEFAULT_CONFIG, note: NoteOption = "", json: JsonOption = False
) -> None:
    """Decide that a row stays out."""
    from feedback.lake.quarantine import drop as keep_out
    from flows.cli.run import person

    _, store, lake = _load(config)
    done = keep_out(store, lake, row, by=person(), note=note)
    if json:
        as_json(done)
    else:
        say(f"row {done.row_id[:12]} stays out")


@app.command()
def suspended(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Accounts whose words are not listened to for a while, since they disagreed with everybody."""
    from datetime import UTC, datetime

    from feedback.index.ingest_index import IngestIndex

    _, _, lake = _load(config)
    with closing(IngestIndex(lake.index_path)) as index:
        suspensions = index.agreement.suspensions()
    rows = [
        (tenant, actor, f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d}", why)
        for tenant, actor, until, why in suspensions
    ]
    if json:
        as_json([dict(zip(("tenant", "actor", "until", "reason"), row, strict=True)) for row in rows])
    elif rows:
        table(("tenant", "account", "until", "reason"), rows)
    else:
        say("nobody is suspended")


@app.command()
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

    settings, _, lake = _load(config)
    name = tenant_of(settings, tenant)
    with locked(lake), closing(IngestIndex(lake.index_path)) as index:
        if not index.agreement.reinstate(name, actor):
            raise NotFound(f"{actor!r} of tenant {name} is not suspended; `ratchet quarantine suspended` lists who is")
    say(f"{actor} is heard again")
