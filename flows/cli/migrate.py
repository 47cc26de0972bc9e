"""`ratchet migrate`: bring the SQL tables of an earlier release to this one's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, as_json, load, note, say

if TYPE_CHECKING:
    from sqlalchemy import Engine


def migrate(
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Do nothing; exit code 2 unless the tables are this release's.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Bring the database's tables to this release, all of it or nothing. Stop what runs, and make a backup first."""
    from infra.database.connect import connect
    from infra.database.schema import SchemaMismatch, head, pending
    from infra.database.schema import migrate as bring_up

    settings = load(config)
    engine = connect(settings.places.database)
    named = engine.url.render_as_string(hide_password=True)
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
        # To look must not make a database.
        facts = {"database": named, "needs": head(), "steps": [], "done": False}
        as_json(facts) if json else say(f"there is no database {named} yet; the first start makes it")
        return
    steps = pending(engine)
    wrong = _differences(engine) if not steps else []
    if wrong:
        raise SchemaMismatch(
            f"the tables of {named} call themselves version {head()} and are not so: {'; '.join(wrong[:5])}; restore "
            "them from a backup"
        )
    done = bool(steps) and not dry_run and not check
    if done:
        note(f"nothing is backed up here; to do it: {_backup(engine.url.database or '', engine.dialect.name)}")
        bring_up(engine, lambda revision, step: note(f"{revision}: {step}"))
    if json:
        listed = [{"revision": name, "what": what} for name, what in steps]
        as_json({"database": named, "needs": head(), "steps": listed, "done": done})
    elif done or not steps:
        say(f"the tables of {named} have version {head()}, as this release needs")
    else:
        for name, what in steps:
            say(f"to do: {name}: {what}")
        say(f"backup first: {_backup(engine.url.database or '', engine.dialect.name)}")
    if check and steps:
        raise SchemaMismatch(f"the tables of {named} are not those of this release; run `ratchet migrate`")


def _differences(engine: Engine) -> list[str]:
    from deploy.sql_tables import declared
    from infra.database.schema import differences

    with engine.connect() as connection:
        return [d.description for d in differences(connection, declared()) if d.kind != "remove_index"]


def _backup(database: str, dialect: str) -> str:
    if dialect == "sqlite":
        return f"sqlite3 {database} \".backup '{database}.before'\""
    return f"pg_dump --format=custom --file=ratchet.dump {database}"
