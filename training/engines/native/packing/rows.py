"""Pack sequences into token rows: end to end in one row without padding where the model allows it, else padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TypeVar

import torch

from training.chat.template import Tokens

T = TypeVar("T")


@dataclass(frozen=True)
class OneRow:
    """All sequences end to end in one row."""

    positions: torch.Tensor
    """[1, tokens] position of each token in its own sequence."""
    bounds: tuple[int, ...]
    """0, end of the first sequence, end of the second, ..., number of tokens."""


@dataclass(frozen=True)
class PaddedRows:
    """A row for each sequence, padded to the longest."""

    mask: torch.Tensor
    """[sequences, longest] 1 where a token stands, 0 where there is padding."""
    row: torch.Tensor
    """[n] row of each kept position."""
    column: torch.Tensor
    """[n] place of its column among the kept columns."""


@dataclass(frozen=True)
class PackedRows:
    """Sequences for one forward pass, and the n positions whose output is wanted."""

    ids: torch.Tensor
    """[rows, columns] tokens."""
    layout: OneRow | PaddedRows
    """How the sequences lie in them."""
    keep: torch.Tensor
    """Positions of the one row, or columns of the padded rows, that the output layer is run on."""
    targets: torch.Tensor
    """[n] tokens that the kept positions predict."""
    sequence_of_token: torch.Tensor
    """[n] which sequence each kept position belongs to."""
    item_of_token: torch.Tensor
    """[n] which item it belongs to."""
    sequences: int
    """Number of sequences."""
    tokens: int
    """Tokens of all of them, padding not counted."""


def pack(sequences: Sequence[Tokens], per_item: int, one_row: bool, pad: int, at_ends: bool = False) -> PackedRows:
    """Pack `sequences`, `per_item` of which belong to each item in turn, for one forward pass.

    Args:
        one_row: end to end in one row; else a padded row for each.
        pad: token that pads.
        at_ends: keep each sequence's last position, not the position before every loss token.
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
    layout: OneRow | PaddedRows
    if one_row:
        bounds = [0]
        for tokens in sequences:
            bounds.append(bounds[-1] + len(tokens.ids))
        ids = torch.tensor([[i for s in sequences for i in s.ids]])
        keep = torch.tensor([bounds[row] + column for row, column in zip(rows, columns, strict=True)])
        positions = torch.tensor([[p for s in sequences for p in range(len(s.ids))]])
        layout = OneRow(positions=positions, bounds=tuple(bounds))
    else:
        longest = max(len(s.ids) for s in sequences)
        kept = sorted(set(columns))
        where = {column: at for at, column in enumerate(kept)}
        ids = torch.tensor([[*s.ids, *([pad] * (longest - len(s.ids)))] for s in sequences])
        keep = torch.tensor(kept)
        layout = PaddedRows(
            mask=torch.tensor([[1] * len(s.ids) + [0] * (longest - len(s.ids)) for s in sequences]),
            row=torch.tensor(rows),
            column=torch.tensor([where[column] for column in columns]),
        )
    return PackedRows(
        ids=ids,
        layout=layout,
        keep=keep,
        targets=torch.tensor(targets),
        sequence_of_token=torch.tensor(owners),
        item_of_token=torch.tensor(owners) // per_item,
        sequences=len(sequences),
        tokens=sum(len(s.ids) for s in sequences),
    )


def on_device(value: T, device: torch.device) -> T:
    """Copy a value with every tensor in its dataclasses, dictionaries, lists and tuples on `device`."""
    if isinstance(value, torch.Tensor):
        return value.to(device)  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: on_device(getattr(value, f.name), device) for f in fields(value)})
    if isinstance(value, dict):
        return {name: on_device(v, device) for name, v in value.items()}  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        return type(value)(on_device(v, device) for v in value)
    return value
