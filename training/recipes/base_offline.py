"""Look up what is known of a base model without a network and without hashing it: its folder and its shape.

For looks before the night, which are to load and download nothing: `ratchet advise`, `config check`, the gate's sight.
"""

from __future__ import annotations

from pathlib import Path

from infra.artifact import read_record
from infra.errors import UserError
from infra.settings import Config
from training.base_model import DEFAULT_BASE, hub_copy, looks_like_repo, packaged_folder
from training.recipes.memory import SMOLLM2_135M, shape_of_folder
from training.tuners.tuner import ModelShape


class KnownBase(Config):
    """A base model as far as it is known here."""

    name: str
    """The name it was asked for by."""
    shape: ModelShape | None
    """Its shape, if that is known."""
    why_not: str = ""
    """Why it is not known."""


def folder_offline(name: str, cache: Path) -> Path | None:
    """Where the base model lies on this machine, in the order in which `resolve_base` looks; None where it does not."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    copy = hub_copy(name) if looks_like_repo(name) else None
    if copy is None and name == DEFAULT_BASE:
        packaged = packaged_folder(cache.expanduser().absolute())
        copy = packaged if read_record(packaged) is not None else None
    return copy


def base_offline(name: str, cache: Path) -> KnownBase:
    """The shape of the base model called `name`, or why it cannot be known without a network."""
    folder = folder_offline(name, cache)
    if folder is None and name == DEFAULT_BASE:  # the one model whose shape is known by heart
        return KnownBase(name=name, shape=SMOLLM2_135M)
    if folder is None:
        return KnownBase(name=name, shape=None, why_not=f"the base model {name} is not on this machine yet")
    try:
        return KnownBase(name=name, shape=shape_of_folder(folder))
    except UserError as error:
        return KnownBase(name=name, shape=None, why_not=str(error))
