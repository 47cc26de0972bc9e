"""Write the reference pages of the gateway's API, the events and the metrics from the code that serves them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tools.reference.markdown import HEAD, cell


def api_reference() -> str:
    """List every route of the gateway with what it is for, from the application itself."""
    from deploy.config import ConsoleJob, GatewayJob
    from deploy.gateway.app import build_app

    job = GatewayJob(
        database_url="sqlite://",
        versions_dir=Path("versions"),
        base_name="base",
        engine_url="http://engine",
        port=1,
        console=ConsoleJob(home=Path()),
    )
    app = build_app(job, engine_key="-", user_salt="-")
    lines = [
        HEAD + "# API of the gateway\n",
        "Requests carry `Authorization: Bearer` and a key of `ratchet keys create`. Errors have OpenAI's form: "
        "`error.message`, `error.type`, `error.code`, `error.param`. `X-Ratchet-User`, `X-Ratchet-Session` and "
        "`X-Ratchet-Task` name the end user, the conversation and the task; answers carry `X-Ratchet-Interaction` and "
        "`X-Ratchet-Version`.\n",
        "| method | path | what it does |\n|---|---|---|",
    ]
    for route in _routes(app):
        summary = _first_line(route.endpoint.__doc__) or _WORDS.get(route.path, "")
        for method in sorted(route.methods - {"HEAD", "OPTIONS"}):
            lines.append(f"| {method} | `{route.path}` | {cell(summary)} |")
    return "\n".join(lines) + "\n"


# Routes whose code says nothing of itself; a test finds those that are missing here.
_WORDS = {
    "/v1/chat/completions": "OpenAI's chat completions, streamed or whole. The answer is stored before it ends.",
    "/v1/arena": "Two blind answers, the champion's and that of what is on trial, in an order drawn by lot.",
    "/v1/arena/choice": "Which of the two is better: first, second or tie. It becomes a preference.",
    "/v1/models": "The names that may be asked for; with an admin key the versions too.",
    "/v1/feedback": "A thumb, rating, edit, preference or reference about an answer. 200 once it is stored, 202 while "
    "its answer is not known yet.",
    "/healthz": "Whether the process lives.",
    "/readyz": "Whether it can answer and keep what it answers; with the database away it can: 200, with the status "
    "`degraded`.",
    "/metrics": "For Prometheus.",
    "/console": "The console's page.",
    "/console/": "The same.",
    "/console/static/{name}": "Its files.",
}


def undocumented_routes() -> list[str]:
    """Routes that neither their code nor `_WORDS` says anything of."""
    return [line for line in api_reference().splitlines() if line.endswith("|  |")]


def _routes(app: Any) -> list[Any]:
    listed: list[Any] = []
    for route in app.routes:
        included = getattr(route, "original_router", None)  # FastAPI does not flatten the routers that it includes
        listed += included.routes if included is not None else [route]
    served = [route for route in listed if hasattr(route, "methods") and hasattr(route, "endpoint")]
    return [route for route in served if route.path not in ("/openapi.json",)]


def events_reference(runbook: str) -> str:
    """List the Prefect events and their payload; kinds and meanings are the runbook's, held to the code by a test."""
    from infra.alerts.outbox import Alert
    from infra.alerts.prefect_events import event_of

    sample = event_of(Alert(kind="held", title="-"))
    lines = [
        HEAD + "# Events\n",
        "Every alert is also a Prefect event, so that automations can act on it (`ratchet alerts sync` makes the "
        "useful ones). Its id comes from the alert's, so Prefect keeps one of two. Names and fields are stable.\n",
        f"Resource: `ratchet.tenant.` and the tenant, or `{sample['resource']['prefect.resource.id']}` where it "
        "concerns all. Labels: `ratchet.severity`.\n",
        "| field of the payload | what it is |\n|---|---|",
        *(f"| `{name}` | {cell(_FIELDS[name])} |" for name in sample["payload"]),
        "\n| event | usual severity | what happened |\n|---|---|---|",
    ]
    severity = ""
    for line in runbook.splitlines():
        if line.startswith("## "):
            severity = next((word for word in ("critical", "warning", "info") if f"({word})" in line), "")
        elif line.startswith("### ") and severity:
            kind = line[4:]
            lines.append(f"| `ratchet.{kind}` | {severity} | {cell(_first_sentence(runbook, kind))} |")
    return "\n".join(lines) + "\n"


_FIELDS = {
    "alert_id": "Id of the alert in the outbox.",
    "kind": "What happened, as in the event's name.",
    "severity": "info, warning or critical.",
    "tenant": "Whose release or data; null for all.",
    "title": "One line.",
    "text": "What happened and why.",
    "next_step": "What to do, with the command.",
    "links": "Label and address of where to look.",
    "facts": "Figures of the kind at hand: ledger line, night, evidence.",
}


def metrics_reference() -> str:
    """List every metric of the gateway with its labels."""
    from deploy.gateway.telemetry.metrics import Metrics

    metrics = Metrics()
    labels = {
        family.name: getattr(collector, "_labelnames", ())
        for collector in vars(metrics).values()
        if hasattr(collector, "describe")
        for family in collector.describe()
    }
    lines = [
        HEAD + "# Metrics\n",
        "Served by each gateway at `/metrics` for Prometheus. `infra/grafana` has a dashboard of them.\n",
        "| metric | type | labels | what it is |\n|---|---|---|---|",
    ]
    for family in sorted(metrics.registry.collect(), key=lambda family: family.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        names = ", ".join(f"`{label}`" for label in labels.get(family.name, ()))
        lines.append(f"| `{name}` | {family.type} | {names} | {cell(family.documentation)} |")
    return "\n".join(lines) + "\n"


def _first_sentence(text: str, heading: str) -> str:
    after = text.split(f"### {heading}\n", 1)[1].strip()
    paragraph = " ".join(after.split("\n\n", 1)[0].split())
    plain = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", paragraph)
    return re.split(r"(?<=[.:])\s+(?=[A-Z])", plain)[0]


def _first_line(text: str | None) -> str:
    return " ".join((text or "").strip().split("\n\n")[0].split())
