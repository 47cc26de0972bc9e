"""`ratchet data accept-store`: go on with a database that was restored from a backup while the lake was not."""

from __future__ import annotations

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, as_json, load, say


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
