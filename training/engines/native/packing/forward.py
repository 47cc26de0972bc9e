"""Sequences through a model: how they are laid out, and what is read at the positions that carry loss.

Laid end to end in one row where the tuner allows it, and the output layer only where a loss needs it: most of what
makes training fast stands here, for every objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from infra.errors import UserError
from training.engines.native.kernels.output_layer import is_plain, logps_of, tapped
from training.engines.native.packing.tokenization import Tokens


def lay_out(sequences: Sequence[Tokens], per_item: int, pack: bool, pad: int, at_ends: bool = False) -> dict[str, Any]:
    """Tensors for one run of the model over `sequences`, `per_item` of which belong to each item in turn.

    What is kept of each is the position before every loss token, or its last position (`at_ends`).
    """
    rows, columns, targets, owners = [], [], [], []
    for index, tokens in enumerate(sequences):
        if at_ends:
            rows.append(index)
            columns.append(len(tokens.ids) - 1)
            targets.append(0)
            owners.append(index)
            continue
        for at, carries in enumerate(tokens.loss):
            if carries:
                rows.append(index)
                columns.append(at - 1)  # the position before predicts it
                targets.append(tokens.ids[at])
                owners.append(index)
    laid: dict[str, Any] = {
        "targets": torch.tensor(targets),
        "sequence_of_token": torch.tensor(owners),
        "item_of_token": torch.tensor(owners) // per_item,
        "sequences": len(sequences),
        "tokens": sum(len(s.ids) for s in sequences),
    }
    if pack:
        bounds = [0]
        for tokens in sequences:
            bounds.append(bounds[-1] + len(tokens.ids))
        laid["ids"] = torch.tensor([[i for s in sequences for i in s.ids]])
        laid["positions"] = torch.tensor([[p for s in sequences for p in range(len(s.ids))]])
        laid["keep"] = torch.tensor([bounds[row] + column for row, column in zip(rows, columns, strict=True)])
        laid["bounds"] = tuple(bounds)
        return laid
    longest = max(len(s.ids) for s in sequences)
    laid["ids"] = torch.tensor([[*s.ids, *([pad] * (longest - len(s.ids)))] for s in sequences])
    laid["mask"] = torch.tensor([[1] * len(s.ids) + [0] * (longest - len(s.ids)) for s in sequences])
    keep = sorted(set(columns))
    where = {column: at for at, column in enumerate(keep)}
    laid["keep"] = torch.tensor(keep)
    laid["row"] = torch.tensor(rows)
    laid["column"] = torch.tensor([where[column] for column in columns])
    return laid


@dataclass
class Reading:
    """What one run of the model gives at the n kept positions."""

    logps: torch.Tensor | None = None
    """[n] log-probabilities of the targets."""
    logits: torch.Tensor | None = None
    """[n, vocabulary]."""
    hidden: torch.Tensor | None = None
    """[n, width] final hidden states."""


def read(
    model: torch.nn.Module,
    laid: dict[str, Any],
    offset: int = 0,
    *,
    logps: bool = True,
    logits: bool = False,
    hidden: bool = False,
) -> Reading:
    """Run the model over what `lay_out` made.

    Args:
        offset: number of learned positions that the tuner puts before every row (prompt tuning).
        logps, logits, hidden: what is wanted.
    """
    out = Reading()
    laid = on_device(laid, next(model.parameters()).device)  # the trainer moves its own batches, nobody else's

    def rows(values: torch.Tensor) -> torch.Tensor:
        return values[0] if "bounds" in laid else values[laid["row"], laid["column"]]

    def consume(states: torch.Tensor, layer: torch.nn.Module) -> None:
        states = rows(states)
        out.hidden = states if hidden else None
        if logits:
            out.logits = layer(states)
        elif logps:
            out.logps = logps_of(states, layer, laid["targets"])

    inputs: dict[str, Any] = {"input_ids": laid["ids"]}
    if "bounds" in laid:
        inputs |= {
            "use_cache": False,
            "position_ids": laid["positions"],
            "logits_to_keep": laid["keep"],
            "sequence_bounds": laid["bounds"],
        }
    else:
        inputs |= {"attention_mask": laid["mask"], "logits_to_keep": laid["keep"] + offset}
    if not is_plain(model) and (logps or logits):
        # What the model does to its logits is its own business: let it.
        made = rows(model(**inputs).logits)
        if hidden:
            raise UserError(f"{type(model).__name__}: values of a model that reworks its logits are not supported")
        out.logits = made
    else:
        with tapped(model, consume):
            model(**inputs)
    if out.logits is not None and logps:
        out.logps = -cross_entropy(out.logits.float(), laid["targets"], reduction="none")
    return out


def token_logps(model: torch.nn.Module, laid: dict[str, Any], offset: int = 0) -> torch.Tensor:
    """[n] log-probability of every token that carries loss."""
    logps = read(model, laid, offset).logps
    assert logps is not None
    return logps


def per_sequence(logps: torch.Tensor, laid: dict[str, Any]) -> torch.Tensor:
    """[sequences] sums of token log-probabilities."""
    return logps.new_zeros(laid["sequences"]).index_add(0, laid["sequence_of_token"].to(logps.device), logps)


def on_device(value: Any, device: torch.device) -> Any:
    """Every tensor in lists and dictionaries on that device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: on_device(v, device) for name, v in value.items()}
    return [on_device(v, device) for v in value] if isinstance(value, list) else value
