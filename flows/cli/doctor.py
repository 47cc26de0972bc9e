"""`ratchet doctor`: check this machine and the pipeline's config."""

from __future__ import annotations

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, as_json, load, say


def doctor(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Check versions, ports, disk, processor, base model and who may look in; exit code 1 when something is wrong."""
    from flows.stack.doctor import examine

    findings = []
    for finding in examine(load(config, only_look=True)):
        findings.append(finding)
        if not json:
            mark = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}[finding.state]
            say(
                f"{mark}  {finding.check}: {finding.result}"
                + (f"\n         -> {finding.advice}" if finding.advice else "")
            )
    if json:
        as_json([finding.model_dump(mode="json") for finding in findings])
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
