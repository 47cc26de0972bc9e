"""Estimate how much memory a stage will take, before it is started: from the model's shape, tuner and settings.

The parts are counted, not guessed: weights as they are stored, gradients and AdamW's moments of what moves, what a
backward pass keeps of every token, and a constant for the process. tests/training/recipes/test_memory.py compares the
activations with those that PyTorch really keeps, and the whole with the peak that a run measured.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from infra.settings import Config
from training.base_config import shape_config
from training.objectives import objective_named
from training.recipes.recipe import StageSpec
from training.tuners import tuner_named
from training.tuners.tuner import ModelShape, Tuner
from training.weights.safetensors_headers import tensor_sizes

PROCESS_BYTES = 600_000_000
"""Resident memory of a training process before a model is loaded: Python, torch, transformers, peft."""
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes a 4-bit weight takes: half a byte, and its block's scale in 8 bits (Dettmers et al. 2023, section 3)."""

ROOM = 0.9
"""Share of the memory that a stage may be expected to take."""

SMOLLM2_135M = ModelShape(
    linears=tuple(
        sorted(
            30
            * (
                ("q_proj", 576, 576),
                ("k_proj", 576, 192),
                ("v_proj", 576, 192),
                ("o_proj", 576, 576),
                ("gate_proj", 576, 1536),
                ("up_proj", 576, 1536),
                ("down_proj", 1536, 576),
            )
        )
    ),
    total=134_515_008,
    layers=30,
    hidden=576,
    kv_width=192,
)
"""The default base model, for tables that need some model."""


class Memory(Config):
    """Expected peak of one training process, in bytes."""

    weights: int
    """The model, as it is held."""
    moving: int
    """Gradients and optimizer state of what is trained."""
    activations: int
    """What the backward pass of the fullest pass keeps."""
    process: int = PROCESS_BYTES
    """Everything else."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.moving + self.activations + self.process


def shape_of_folder(base: Path) -> ModelShape:
    """Read a base model's shape from its config and the headers of its files: no torch, no weights read.

    Raises:
        UserError: the config does not say it in the words of the models that Ratchet trains.
    """
    config = shape_config(base)
    linears, total = [], 0
    for key, sizes in tensor_sizes(base):
        total += math.prod(sizes)
        if len(sizes) == 2 and key.endswith(".weight") and "layers." in key:
            linears.append((key.split(".")[-2], sizes[1], sizes[0]))
    return ModelShape(
        linears=tuple(sorted(linears)),
        total=total,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        kv_width=config.kv_width,
    )


def estimate(
    shape: ModelShape,
    spec: StageSpec,
    dtype: Literal["float32", "bfloat16"],
    *,
    processes: int = 1,
    loss_share: float = 0.5,
    graded_by_model: bool = False,
) -> Memory:
    """Estimate the peak of one process. What a local teacher's own weights take is not in it.

    Args:
        shape: the base model's.
        spec: the stage; its `tokens_per_pass` bounds what goes through the model at once.
        dtype: what is computed in.
        processes: processes that share the weights, gradients and optimizer state (FSDP).
        loss_share: share of the tokens that carry loss; the output layer runs on those.
        graded_by_model: whether a reward model of the base's size grades answers.
    """
    tuner = tuner_named(spec.tuner)
    options = tuner.options.model_validate(dict(spec.tuner_options))
    size = 4 if dtype == "float32" else 2
    trained = tuner.parameters(shape, options)
    in_linears = sum(inputs * outputs for _, inputs, outputs in shape.linears)
    weights = float(shape.total * size)
    if tuner.quantised:
        weights -= in_linears * (size - NF4_BYTES)
    weights += 0 if tuner.saves == "model" else tuner.saved_numbers(shape, options) * size
    # AdamW keeps two float32 moments, and a float32 master copy where the weights are not float32 themselves.
    moving = trained * (size + 8 + (0 if dtype == "float32" else 4))
    tokens = min(spec.tokens_per_pass, (spec.batch_size or 8) * spec.max_length)
    per_layer = kept_per_token(shape, tuner, options) * size
    if spec.gradient_checkpointing:
        activations = tokens * (shape.layers * shape.hidden * size + per_layer)
    else:
        activations = tokens * shape.layers * per_layer
    vocabulary = (shape.total - in_linears) // shape.hidden
    # A row of logits in float32, and its gradient, for a stretch of tokens at a time at least.
    activations += int(tokens * loss_share) * (shape.hidden * size) + 256 * vocabulary * 8
    objective = objective_named(spec.objective)
    if "logits" in objective.reads:  # of student and teacher, and in float32 both, their difference and its gradient
        activations += int(tokens * loss_share) * vocabulary * (2 * size + 4 * 4)
    if graded_by_model:
        weights += shape.total * size
    if objective.online is not None:  # the generator's own copy of the base, and of a whole model that moves
        weights += shape.total * size * (2 if tuner.saves == "model" else 1)
    return Memory(weights=int(weights / processes), moving=int(moving / processes), activations=int(activations))


def recomputes(
    shape: ModelShape,
    spec: StageSpec,
    dtype: Literal["float32", "bfloat16"],
    *,
    memory: int,
    processes: int = 1,
    graded_by_model: bool = False,
) -> str | None:
    """Tell why a stage has to recompute its activations; None where it need not, or cannot.

    Args:
        memory: bytes that one process may count on.
    """
    expected = estimate(shape, spec, dtype, processes=processes, graded_by_model=graded_by_model).total
    if spec.gradient_checkpointing or not tuner_named(spec.tuner).recomputes or expected <= ROOM * memory:
        return None
    return (
        f"an expected peak of {expected / 1e9:.1f} GB would not fit {memory / 1e9:.1f} GB of memory with a tenth to "
        "spare; about 1.5 times slower"
    )


def kept_per_token(shape: ModelShape, tuner: Tuner, options: Config) -> int:
    """Count the numbers that one block keeps of one token for the backward pass.

    By a block's parts: both norms keep their inputs and what they normalised (4 widths); attention keeps queries, keys
    and values after their rotation, repeated to as many heads as there are queries, and its output (4 widths); the
    feed-forward keeps gate, up, the gate's activation and their product (4 inner widths). Of an adapter beside a linear
    layer the low-rank middle is kept (the layer's input is already), with dropout another input and its mask, and as
    many outputs as the tuner says.
    """
    blocks = max(1, shape.layers)
    inner = max((outputs for _, _, outputs in shape.linears), default=shape.hidden)
    inputs = sum(i for _, i, _ in shape.linears) // blocks
    outputs = sum(o for _, _, o in shape.linears) // blocks
    kept = 8 * shape.hidden + 4 * inner
    kept += int(getattr(options, "rank", 0)) * len(shape.linears) // blocks
    if getattr(options, "dropout", 0) > 0:
        kept += inputs + inputs // 4
    return kept + tuner.kept_outputs * outputs
