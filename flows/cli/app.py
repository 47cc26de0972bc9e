"""Register all commands of `ratchet`, one line each."""

from __future__ import annotations

import typer

from flows.cli import (
    alerts,
    ask,
    config,
    data,
    demo,
    deploy,
    doctor,
    experiments,
    feedback,
    forget,
    gate,
    init,
    keys,
    lineage,
    methods,
    migrate,
    quarantine,
    release,
    run,
    stack,
)
from flows.cli.plug_ins import PlugInGroup

app = typer.Typer(
    cls=PlugInGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Keep a language model improving on what its users say about it.",
)
app.command()(init.init)
app.command()(stack.up)
app.command()(stack.down)
app.command()(stack.status)
app.command()(migrate.migrate)
app.command("sign-in")(stack.sign_in)
app.command()(ask.ask)
app.command()(deploy.deploy)
app.command()(deploy.serve)
app.command()(demo.demo)
app.add_typer(run.app, name="run")
app.command()(release.release)
app.command()(release.rollback)
app.command()(release.withdraw)
app.command()(release.pause)
app.command()(release.resume)
app.command()(release.bar)
app.command()(release.unbar)
app.command()(release.ledger)
app.command()(lineage.why)
app.command()(release.drill)
app.command()(experiments.shadow)
app.command()(experiments.arena)
app.command()(methods.methods)
app.command()(methods.advise)
app.command()(methods.checkpoints)
app.command()(doctor.doctor)
app.command()(gate.approve)
app.command()(gate.decline)
app.command()(gate.compare)
app.add_typer(gate.app, name="gate")
app.add_typer(config.app, name="config")
app.add_typer(feedback.app, name="feedback")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(data.app, name="data")
app.command()(lineage.lineage)
app.command()(forget.forget)
app.add_typer(keys.app, name="keys")
app.add_typer(alerts.app, name="alerts")
