"""`ratchet config check|show|schema`: check, print and document the config file."""

from __future__ import annotations

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, as_json, load, say

app = typer.Typer(no_args_is_help=True, help="Check, show and document the config file.")


@app.command()
def check(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Find every mistake before any work is done; exit code 2 when there is one."""
    from feedback.quality.expectations import validate_suite
    from flows.planning.canary_power import describe_canary_power
    from flows.planning.gate_power import describe_gate_power

    settings = load(config)
    validate_suite(settings.ingest.expectations)
    gate, canary = describe_gate_power(settings), describe_canary_power(settings)
    if json:
        as_json({"ok": True, "pipeline": settings.pipeline, "gate": gate, "canary": canary})
    else:
        say(f"{config}: no mistakes found (pipeline {settings.pipeline})")
        for line in (*gate, *canary):
            say(line)


@app.command()
def show(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Print the whole config as it will be used, defaults included."""
    import yaml

    values = load(config).model_dump(mode="json")
    if json:
        as_json(values)
    else:
        say(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip())


@app.command()
def schema() -> None:
    """Print the JSON schema of the config file; editors can use it for help and completion."""
    from flows.config.pipeline import PipelineConfig

    as_json(PipelineConfig.model_json_schema())
