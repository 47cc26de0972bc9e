"""`ratchet forget`: take a person out of everything that is kept, and list who was."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, note, say, table


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
    from flows.erasure.forget import forget as take_away
    from infra.errors import UserError
    from tasks.opened import database

    settings = load(config)
    store, whose = Store(database(settings.places)), tenant_of(settings, tenant)
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
