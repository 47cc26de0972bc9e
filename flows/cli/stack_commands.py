"""`ratchet up`, `down`, `status`: the local stack."""

from __future__ import annotations

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, as_json, load, note, say, table


def up(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Start all servers of the pipeline on this machine and wait until they answer. Harmless when they run already."""
    from flows.local_secrets import load_secrets
    from flows.local_stack import stack_plan
    from infra import stack

    settings = load(config)
    load_secrets(settings.places.run_dir)
    started = stack.up(stack_plan(settings), on_progress=note)
    places = settings.places
    urls = {
        "gateway": places.gateway_url + "/v1",
        "prefect": places.prefect_api.removesuffix("/api"),
        "mlflow": places.mlflow,
    }
    if json:
        as_json({"started": started, "urls": urls, "logs": str(places.logs_dir)})
        return
    say("the stack is up" if started else "the stack was up already")
    table(("server", "address"), urls.items())
    say(f"logs: {places.logs_dir}")


def down(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Stop exactly the servers that `up` started."""
    from infra import stack

    settings = load(config)
    stopped = stack.down(settings.places.run_dir, on_progress=note)
    if json:
        as_json({"stopped": stopped})
    else:
        say(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def status(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """What runs, which version is live, since when and why."""
    from infra import stack

    settings = load(config)
    state = stack.status(settings.places.run_dir)
    if json:
        as_json({"stack": state.model_dump(mode="json")})
        return
    say("stack: " + ("healthy" if state.healthy else "running, not healthy" if state.running else "not running"))
    if state.parts:
        table(
            ("part", "state", "pid", "restarts", "last exit", "log"),
            ((p.name, p.state, p.pid or "-", p.restarts, p.last_exit or "-", p.log_file) for p in state.parts),
        )
