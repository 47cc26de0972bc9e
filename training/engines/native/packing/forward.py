"""Run the forward pass over packed rows, with the output layer only at the positions that carry loss.

Most of what makes training fast stands here and in rows.py, for every objective.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from infra.errors import UserError
from training.engines.native.kernels.output_layer import is_plain, logps_of, tapped
from training.engines.native.packing.rows import OneRow, PackedRows, on_device


@dataclass
class ForwardOutput:
    """What one forward pass gives at the n kept positions."""

    logps: torch.Tensor | None = None
    """[n] log-probabilities of the targets."""
    logits: torch.Tensor | None = None
    """[n, vocabulary]."""
    hidden: torch.Tensor | None = None
    """[n, width] final hidden states."""


def forward(
    model: torch.nn.Module,
    rows: PackedRows,
    virtual_tokens: int = 0,
    *,
    logps: bool = True,
    logits: bool = False,
    hidden: bool = False,
) -> ForwardOutput:
    """Run the model over packed rows.

    Args:
        virtual_tokens: learned positions that the tuner puts before every row (prompt tuning).
        logps, logits, hidden: what is wanted.
    """
    out = ForwardOutput()
    rows = on_device(rows, next(model.parameters()).device)  # the trainer moves its own batches, nobody else's
    layout = rows.layout

    def kept(values: torch.Tensor) -> torch.Tensor:
        return values[0] if isinstance(layout, OneRow) else values[layout.row, layout.column]

    def consume(states: torch.Tensor, layer: torch.nn.Module) -> None:
        states = kept(states)
        out.hidden = states if hidden else None
        if logits:
            out.logits = layer(states)
        elif logps:
            out.logps = logps_of(states, layer, rows.targets)

    inputs: dict[str, object] = {"input_ids": rows.ids}
    if isinstance(layout, OneRow):
        inputs |= {
            "use_cache": False,
            "position_ids": layout.positions,
            "logits_to_keep": rows.keep,
            "sequence_bounds": layout.bounds,
        }
    else:
        inputs |= {"attention_mask": layout.mask, "logits_to_keep": rows.keep + virtual_tokens}
    if not is_plain(model) and (logps or logits):
        # What the model does to its logits is its own business: let it.
        made = kept(model(**inputs).logits)
        if hidden:
            raise UserError(f"{type(model).__name__}: values of a model that reworks its logits are not supported")
        out.logits = made
    else:
        with tapped(model, consume):
            model(**inputs)
    if out.logits is not None and logps:
        out.logps = -cross_entropy(out.logits.float(), rows.targets, reduction="none")
    return out


def token_logps(model: torch.nn.Module, rows: PackedRows, virtual_tokens: int = 0) -> torch.Tensor:
    """Compute the log-probability of every token that carries loss: [n]."""
    logps = forward(model, rows, virtual_tokens).logps
    assert logps is not None
    return logps


def sum_per_sequence(values: torch.Tensor, rows: PackedRows) -> torch.Tensor:
    """Sum values of the kept positions over each sequence: [n] -> [sequences]."""
    return values.new_zeros(rows.sequences).index_add(0, rows.sequence_of_token.to(values.device), values)
