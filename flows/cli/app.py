"""All commands of `ratchet`, one line each."""

from __future__ import annotations

import typer

from flows.cli import (
    alert_commands,
    config_commands,
    data_commands,
    deploy_commands,
    first_commands,
    gate_commands,
    hold_commands,
    key_commands,
    lake_commands,
    live_commands,
    look_commands,
    method_commands,
    migrate_commands,
    release_commands,
    restore_commands,
    run_commands,
    serve_commands,
    stack_commands,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Keep a language model improving on what its users say about it.",
)
app.command()(first_commands.init)
app.command()(stack_commands.up)
app.command()(stack_commands.down)
app.command()(stack_commands.status)
app.command()(migrate_commands.migrate)
app.command("sign-in")(stack_commands.sign_in)
app.command()(first_commands.ask)
app.command()(deploy_commands.deploy)
app.command()(serve_commands.serve)
app.command()(look_commands.demo)
app.add_typer(run_commands.app, name="run")
app.command()(release_commands.release)
app.command()(release_commands.rollback)
app.command()(hold_commands.withdraw)
app.command()(hold_commands.pause)
app.command()(hold_commands.resume)
app.command()(hold_commands.bar)
app.command()(hold_commands.unbar)
app.command()(release_commands.ledger)
app.command()(live_commands.why)
app.command()(live_commands.drill)
app.command()(live_commands.shadow)
app.command()(live_commands.arena)
app.command()(method_commands.methods)
app.command()(method_commands.advise)
app.command()(method_commands.checkpoints)
app.command()(look_commands.doctor)
app.command()(gate_commands.approve)
app.command()(gate_commands.decline)
app.command()(gate_commands.compare)
app.add_typer(gate_commands.app, name="gate")
app.add_typer(config_commands.app, name="config")
app.add_typer(data_commands.feedback, name="feedback")
app.add_typer(data_commands.quarantine, name="quarantine")
lake_commands.data.command()(restore_commands.accept_store)
app.add_typer(lake_commands.data, name="data")
app.command()(lake_commands.lineage)
app.command()(lake_commands.forget)
app.add_typer(key_commands.app, name="keys")
app.add_typer(alert_commands.app, name="alerts")
