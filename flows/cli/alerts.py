"""`ratchet alerts list|test|sync`: list alerts and their delivery, test the receivers, sync Prefect's automations."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, say, table

app = typer.Typer(no_args_is_help=True, help="Alerts: what was told, whether they arrive, automations.")


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    last: Annotated[int, typer.Option(min=1, help="Only so many.")] = 20,
    json: JsonOption = False,
) -> None:
    """The newest alerts, and where each of them has arrived."""
    from infra.alerts.outbox import list_alerts
    from infra.database.open import open_database

    alerts = list_alerts(open_database(load(config).places), tenant=tenant, limit=last)
    if json:
        as_json([alert.model_dump(mode="json") for alert in alerts])
        return
    table(
        ("time (UTC)", "kind", "severity", "title", "arrived at", "failing"),
        (
            (
                f"{alert.created_at:%Y-%m-%d %H:%M:%S}",
                alert.kind,
                alert.severity,
                alert.title,
                ", ".join(alert.delivered) or "-",
                ", ".join(f"{where}: {why}" for where, why in alert.failing.items()) or "-",
            )
            for alert in alerts
        ),
    )


@app.command()
def test(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Send one alert to every receiver of the config now, and say which took it; exit code 1 when one did not."""
    from infra.alerts.delivery import send_now
    from infra.alerts.outbox import Alert

    settings = load(config)
    alert = Alert(
        kind="test",
        severity="info",
        title=f"a test of the alerts of {settings.pipeline}",
        text="Somebody ran `ratchet alerts test`. Nothing happened.",
        next_step="nothing is to be done",
    )
    errors = send_now(alert, settings.alerts)
    if json:
        as_json(errors)
    elif not errors:
        say("no receiver is configured; name one under alerts.webhooks or alerts.apprise")
    for destination, error in errors.items():
        if not json:
            say(f"{destination}: {error or 'took it'}")
    if any(errors.values()):
        raise typer.Exit(1)


@app.command()
def sync(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Make or update Ratchet's automations on the Prefect server. Doing it again changes nothing."""
    from flows.cli.run import load_with_prefect

    settings = load_with_prefect(config)
    from flows.serving.automations import sync as sync_automations

    done = sync_automations(settings)
    if json:
        as_json(done)
    else:
        table(("automation", "what was done"), done.items())
