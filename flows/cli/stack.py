"""`ratchet up`, `down`, `status`, `sign-in`: the local stack."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, as_json, load, note, say, table


def up(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Start all servers of the pipeline on this machine and wait until they answer. Harmless when they run already."""
    from flows.stack.first_keys import first_keys
    from flows.stack.local_stack import stack_plan
    from flows.stack.secrets_file import load_secrets
    from infra.database.open import open_database
    from infra.file_permissions import close_folder
    from infra.processes import stack
    from training.base_model import resolve_base

    settings = load(config)
    places = settings.places
    close_folder(places.home_dir)
    load_secrets(places)
    open_database(places)  # of another release: say so here, not in the log of each part
    note(f"base model {settings.base_model} ...")
    base = resolve_base(settings.base_model, places.cache_dir)
    note(f"base model {base.version}, found in: {base.source} ({base.path})")
    keys = first_keys(settings)
    started = stack.up(stack_plan(settings, config, base), on_progress=note)
    urls = {
        "gateway": places.gateway_url + "/v1",
        "prefect": places.prefect_api.removesuffix("/api"),
        "mlflow": places.mlflow,
    }
    if json:
        as_json({"started": started, "urls": urls, "logs": str(places.logs_dir), "keys": str(keys.file)})
        return
    say("the stack is up" if started else "the stack was up already")
    table(("server", "address"), urls.items())
    say(f"logs: {places.logs_dir}")
    say(keys.advice(settings))
    say("the pages of Prefect and MLflow ask who you are: `ratchet sign-in` says what to answer")


def sign_in(
    server: Annotated[str | None, typer.Argument(help="prefect or mlflow; left out, both.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """What the pages of our own Prefect and MLflow ask for. With a server's name its secret and nothing else."""
    import os

    from infra.errors import UserError
    from infra.sign_in import MLFLOW_PASSWORD, MLFLOW_USER, PREFECT_SIGN_IN

    places = load(config).places
    asked = {
        "prefect": (places.prefect_api_url, places.prefect_api.removesuffix("/api"), "", PREFECT_SIGN_IN),
        "mlflow": (places.mlflow_url, places.mlflow, os.environ.get(MLFLOW_USER, ""), MLFLOW_PASSWORD),
    }
    if server is not None and server not in asked:
        raise UserError(f"got {server!r}, expected one of {', '.join(asked)}")
    found = {}
    for name, (elsewhere, address, user, secret) in asked.items():
        if server in (None, name) and elsewhere is None:
            if not os.environ.get(secret):
                raise UserError(f"no stack was ever started for {config}; `ratchet up` makes what {name} asks for")
            found[name] = {"address": address, "user": user, "secret": os.environ[secret]}
    if server is not None and server not in found:
        raise UserError(f"{server} is a server of yours ({asked[server][0]}): what it asks for, you gave it")
    if json:
        as_json(found)
    elif server is not None:
        say(found[server]["secret"])
    else:
        rows = ((name, facts["address"], facts["user"] or "-", facts["secret"]) for name, facts in found.items())
        table(("server", "address", "user", "secret"), rows)


def down(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Stop exactly the servers that `up` started."""
    from infra.processes import stack

    settings = load(config)
    stopped = stack.down(settings.places.run_dir, on_progress=note)
    if json:
        as_json({"stopped": stopped})
    else:
        say(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def status(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """What runs, which version is live, since when and why, the last nights, and alerts not delivered yet."""
    from deploy.controller.summary import summarise_release
    from flows.night.record import nights_of
    from infra.alerts.outbox import list_alerts
    from infra.database.open import open_database
    from infra.processes import stack

    settings = load(config)
    state = stack.status(settings.places.run_dir)
    database = open_database(settings.places)
    releases = {tenant: summarise_release(database, tenant) for tenant in settings.tenants}
    nights = [night for tenant in settings.tenants for night in nights_of(settings, tenant)[-3:]]
    failing = [alert for alert in list_alerts(database) if alert.failing]
    if json:
        summary = [n.model_dump(mode="json", include={"night_id", "tenant", "state", "outcome"}) for n in nights]
        as_json(
            {
                "stack": state.model_dump(mode="json"),
                "releases": {tenant: release.model_dump(mode="json") for tenant, release in releases.items()},
                "nights": summary,
                "alerts_failing": [alert.model_dump(mode="json") for alert in failing],
            }
        )
        return
    say("stack: " + ("healthy" if state.healthy else "running, not healthy" if state.running else "not running"))
    if state.parts:
        table(
            ("part", "state", "pid", "restarts", "last exit", "log"),
            ((p.name, p.state, p.pid or "-", p.restarts, p.last_exit or "-", p.log_file) for p in state.parts),
        )
    for tenant, release in releases.items():
        since = release.since.isoformat() if release.since else "-"
        say(f"{tenant}: {release.champion or 'nothing'} is live since {since}: {release.why}")
        if release.canary:
            judgement = release.watch.reason if release.watch else "not judged yet"
            say(f"  canary: {release.canary} gets {release.canary_share:.0%} of new users ({judgement})")
        if release.holdback:
            say(f"  held back for comparison: {release.holdback}")
        for version, why in release.barred.items():
            say(f"  barred: {version} ({why})")
        if release.paused:
            say("  releases by the nightly run are paused; `ratchet resume` lets them go on")
    for night in nights:
        ended = night.outcome or ("interrupted or running; `ratchet run nightly` takes it up")
        say(f"night {night.night_id}: {night.state}. {ended[:200]}")
    for alert in failing:
        say(f"alert not delivered: {alert.title} ({', '.join(f'{k}: {v}' for k, v in alert.failing.items())})")
