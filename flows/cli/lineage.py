"""`ratchet lineage`, `ratchet why`: what something was made of, what became of it, and how an answer came to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, say

if TYPE_CHECKING:
    from deploy.ledger.ledger import Entry


def lineage(
    name: Annotated[
        str, typer.Argument(help="Id of an answer, event, example, snapshot or version; or a ledger line's number.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """What something was made of, and what became of it."""
    from deploy.lineage.trace import trace
    from feedback.store.store import Store
    from flows.config.pipeline import tenant_of
    from infra.database.open import open_database

    settings = load(config)
    traced = trace(settings.places, Store(open_database(settings.places)), name, tenant=tenant_of(settings, tenant))
    if json:
        as_json(traced)
        return
    say(f"{traced.kind} {traced.name}")
    for title, links in (("made of", traced.made_of), ("became", traced.became)):
        say(f"{title}:" + ("" if links else " nothing that is known"))
        for link in links:
            say(f"  {link.kind} {link.name}" + (f"  ({link.note})" if link.note else ""))


def why(
    interaction: Annotated[str, typer.Argument(help="The id that came with the answer.")],
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """Explain one answer: which version gave it, what that was trained on, why it was let in, how it was released."""
    from deploy.lineage.explain import explain
    from flows.config.pipeline import tenant_of
    from infra.database.open import open_database

    settings = load(config)
    answer = explain(
        open_database(settings.places),
        settings.places.versions_dir,
        tenant_of(settings, tenant),
        interaction,
        shared=settings.tenants[0],
    )
    if json:
        as_json(answer)
        return
    say(f"{answer.interaction_id} was answered at {answer.at} UTC by {answer.version}")
    if answer.arm is not None:
        say(
            f"  routing: arm {answer.arm}, with chance {answer.probability:.0%}; {_entry(answer.release, 'no release')}"
        )
    if answer.gated is not None:
        gate, override = answer.gated.evidence.gate, answer.gated.evidence.override
        why_in = f"override by {override.actor}: {override.reason}" if override else str(gate.reason if gate else None)
        scorecard = (gate.scorecard if gate else None) or "-"
        say(f"  let in: {why_in} (ledger line {answer.gated.seq}, scorecard {scorecard[:16]})")
    if answer.like_barred is not None:
        say(f"  most like the barred {answer.like_barred.version}: likeness {answer.like_barred.likeness:.2f}")
    if answer.record is not None:
        say(f"  made by: {answer.record.name} (key {answer.record.key[:16]}, digest {answer.record.digest[:16]})")
        for role, parent in answer.record.parents.items():
            say(f"  from {role}: {parent[:16]}")
    else:
        say(f"  no record of its making: {answer.missing}")
    for entry in answer.lines:
        say(f"  {_entry(entry, '')}")
    say(f"  feedback on it: {answer.feedback}")


def _entry(entry: Entry | None, without: str) -> str:
    if entry is None:
        return without
    share = f" at {entry.share:.0%}" if entry.share else ""
    return (
        f"line {entry.seq}, {entry.at:%Y-%m-%d %H:%M:%S}: {entry.action}{share} by {entry.actor}: {entry.reason[:160]}"
    )
