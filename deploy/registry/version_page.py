"""Describe a version on its page in MLflow: tags and text of where it comes from and what became of it."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.ledger.ledger import Entry
from deploy.ledger.state import ReleaseState

SEQ_TAG, STATE_TAG = "ratchet.seq", "ratchet.state"


def origin_tags(entries: Sequence[Entry], version: str) -> dict[str, str]:
    """Return where a version comes from, as tags: its night, snapshot and MLflow run, and the ledger lines about it."""
    about = [entry for entry in entries if entry.version == version]
    gates = (entry.evidence.gate for entry in reversed(about))
    gate = next((gate for gate in gates if gate is not None), None)
    night = next((entry.night_id for entry in about if entry.night_id), None)
    tags = {
        "ratchet.night": night,
        "ratchet.snapshot": gate.snapshot if gate else None,
        "ratchet.run": gate.mlflow_run if gate else None,
        "ratchet.gain": gate.gain if gate else None,
        "ratchet.decision": gate.decision if gate else None,
        "ratchet.lines": ",".join(str(entry.seq) for entry in about),
    }
    return {name: str(value) for name, value in tags.items() if value}


def description(entries: Sequence[Entry], version: str) -> str:
    """Write what somebody who decides on a version must know: why it passed, what became of it, what made it."""
    about = [entry for entry in entries if entry.version == version]
    links = origin_tags(entries, version)
    head = [f"**{version}**"]
    if links.get("ratchet.gain"):
        head.append(f"gain over the champion it was judged against: {float(links['ratchet.gain']):+.3f}")
    events = [
        f"- {entry.at:%Y-%m-%d %H:%M} line {entry.seq}: **{entry.action}** by {entry.actor}. {entry.reason}"
        for entry in about
    ]
    made = [
        f"- {name.removeprefix('ratchet.')}: `{links[name]}`"
        for name in ("ratchet.night", "ratchet.snapshot", "ratchet.run")
        if name in links
    ]
    return "\n".join([", ".join(head), "", *events, *(["", "Made of:", *made] if made else [])])[:4900]


def state_tags(state: ReleaseState, version: str) -> dict[str, str]:
    """Return what the ledger says of a version now, as tags."""
    if version in state.barred:
        label = "barred"
    elif version == state.champion:
        label = "champion"
    elif version == state.canary:
        label = "canary"
    elif version == state.gated:
        label = "gated"
    else:
        label = "superseded" if version in state.champions else "withdrawn"
    return {STATE_TAG: label, SEQ_TAG: str(state.seq), "ratchet.tenant": state.tenant}
