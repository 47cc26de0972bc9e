"""Sample answers from the weights that are being trained, through the one generator.

The weights of the moment are written out and attached to the generator (training/generation/generator.py), which keeps
its own copy of the base.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from training.weights.files import is_peft, save_weights

if TYPE_CHECKING:
    from training.generation.generator import Generator
    from training.generation.requests import Completion, Request


class PolicySampler:
    """A generator that serves the policy's weights of the moment.

    Args:
        model: what is trained.
        base: folder of what stands below the adapter (or of any model of that shape, if the whole model is trained).
        dtype: what the generator computes in.
        folder: where weights are written for the generator.
        save: how they are written.
    """

    def __init__(
        self,
        model: Any,
        *,
        base: Path,
        dtype: Literal["float32", "bfloat16"],
        folder: Path,
        save: Callable[[Any, Path], None] = save_weights,
    ) -> None:
        self.model, self.base, self.dtype, self.folder = model, base, dtype, folder
        self._save = save
        self._generator: Generator | None = None
        self._attached: str | None = None
        self._count = 0

    @property
    def generator(self) -> Generator:
        """The generator over the base, loaded at first use."""
        if self._generator is None:
            from training.generation.generator import Generator

            self._generator = Generator(self.base, dtype=self.dtype)
        return self._generator

    def attached(self) -> str:
        """Attach the weights of the moment, if they are not yet; the name under which the generator knows them."""
        if self._attached is None:
            self._count += 1
            self._attached, folder = f"now-{self._count}", self.folder / f"{self._count}"
            generator = self.generator
            shutil.rmtree(folder, ignore_errors=True)
            self._save(self.model, folder)
            if is_peft(self.model):
                generator.attach(self._attached, folder)
            else:
                generator.attach_model(self._attached, folder)
        return self._attached

    def detach(self) -> None:
        """Let the attached weights go: the next ones are those of then."""
        if self._attached is not None:
            self.generator.detach(self._attached)
            shutil.rmtree(self.folder / f"{self._count}", ignore_errors=True)
        self._attached = None

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer requests; nothing is loaded where there are none."""
        return self.generator.generate(requests) if requests else []

    def close(self) -> None:
        """Give the generator's memory back."""
        self.detach()
        self._generator = None
