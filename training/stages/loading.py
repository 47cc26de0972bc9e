"""Load a stage's model: the base, what the stage before made, and the weights that will move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra.errors import UserError
from training.stages.job import StageJob
from training.tuners.tuner import ModelShape, Tuner
from training.weights.loading import load_adapter, load_plain, placed

if TYPE_CHECKING:
    import torch


def load_for_stage(job: StageJob, tuner: Tuner) -> tuple[Any, bool]:
    """Load the model that the stage trains, and tell whether what stands below its adapter is no longer the plain base.

    Raises:
        UserError: the stage before made something that this one cannot start from.
    """
    from training.weights.merging import merged

    spec, previous = job.spec, job.previous
    options = tuner.options.model_validate(dict(spec.tuner_options))
    if previous is None:
        model = tuner.attach(load_plain(job.base.path, job.dtype, tuner.quantised), options, job.base.name)
        return _prepared(model, job, tuner), False
    if previous.kind == "model":
        # A whole model came before: whatever is trained now stands on it, not on the base.
        model = tuner.attach(load_plain(previous.path / "model", job.dtype, tuner.quantised), options, job.base.name)
        return _prepared(model, job, tuner), True
    if spec.starts_from == "previous":
        model = load_adapter(load_plain(job.base.path, job.dtype, tuner.quantised), previous.path / "adapter", True)
        model = tuner.resume(model) if tuner.resume else model
        return _prepared(model, job, tuner), False
    trained = load_adapter(load_plain(job.base.path, job.dtype), previous.path / "adapter", False)
    try:
        below = merged(trained)
    except UserError as error:
        raise UserError(f"stage {previous.key[:12]}: {error}; use starts_from: previous") from error
    model = tuner.attach(below, options, job.base.name)
    return _prepared(model, job, tuner), True


def _prepared(model: Any, job: StageJob, tuner: Tuner) -> Any:
    import torch

    from training.engines.native.kernels.fused_lora import fuse
    from training.engines.native.kernels.packed_attention import PACKED, register
    from training.objectives import objective_named
    from training.weights.dropout import without_dropout

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(getattr(torch, job.dtype))
    if not objective_named(job.spec.objective).dropout:
        without_dropout(model)
    fuse(model)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if packs(inner, tuner):
        register()
        inner.set_attn_implementation(PACKED)
    if job.spec.gradient_checkpointing:
        inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return placed(model, tuner.quantised)


def packs(model: Any, tuner: Tuner) -> bool:
    """Tell whether sequences may lie end to end in one row for this model and tuner."""
    from training.engines.native.kernels.packed_attention import PACKING_MODELS

    return tuner.packs and model.config.model_type in PACKING_MODELS


def shape_of(model: torch.nn.Module) -> ModelShape:
    """Read off a plain model what the formulas for the number of trained parameters need."""
    import torch

    config: Any = model.config
    output = model.get_output_embeddings()  # type: ignore[operator]
    linears = sorted(
        (name.rpartition(".")[2], module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not output
    )
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return ModelShape(
        linears=tuple(linears),
        total=sum(p.numel() for p in model.parameters()),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        kv_width=head * (getattr(config, "num_key_value_heads", None) or config.num_attention_heads),
    )
