"""Put a model together for a stage: the base, what the stage before made, and the weights that will move."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import UserError
from training.stages.job import StageJob
from training.tuners import Shape, Tuner

if TYPE_CHECKING:
    import torch


def load_plain(path: Path, dtype: str, quantised: bool = False) -> Any:
    """A causal language model from a folder, in evaluation mode, on the CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    kwargs: dict[str, Any] = {"dtype": getattr(torch, dtype), "trust_remote_code": False, "use_safetensors": True}
    if quantised:
        from transformers import BitsAndBytesConfig

        kwargs["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )
    model = AutoModelForCausalLM.from_pretrained(path, **kwargs)
    model.config.use_cache = False
    return model.eval()


def load_for_stage(job: StageJob, tuner: Tuner) -> tuple[Any, bool]:
    """The model that the stage trains, and whether what stands below its adapter is no longer the plain base.

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
    before = load_adapter(load_plain(job.base.path, job.dtype), previous.path / "adapter", False)
    try:
        below = merged(before)
    except UserError as error:
        raise UserError(f"stage {previous.key[:12]}: {error}; use starts_from: previous") from error
    model = tuner.attach(below, options, job.base.name)
    return _prepared(model, job, tuner), True


def placed(model: Any, quantised: bool = False) -> Any:
    """`model` on the first GPU, where there is one: what reads before the trainer does has to find it there.

    Quantised weights go there by themselves, and those of several processes where they are split.
    """
    from training.engines.native.kernels.distributed import world
    from training.hardware import device_name

    return model if quantised or world() > 1 else model.to(device_name())


def load_adapter(model: Any, folder: Path, trainable: bool) -> Any:
    """`model` with the adapter saved in `folder`, in the model's own dtype."""
    from peft import PeftModel

    import training.weights.bottleneck_peft  # noqa: F401  # peft learns of that kind

    return PeftModel.from_pretrained(model, folder, is_trainable=trainable, autocast_adapter_dtype=False)


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
    """Whether sequences may lie end to end in one row for this model and tuner."""
    from training.engines.native.kernels.packed_attention import PACKING_MODELS

    return tuner.packs and model.config.model_type in PACKING_MODELS


def shape_of(model: torch.nn.Module) -> Shape:
    """What the formulas for the number of trained parameters need, read off a plain model."""
    import torch

    config: Any = model.config
    output = model.get_output_embeddings()  # type: ignore[operator]
    linears = sorted(
        (name.rpartition(".")[2], module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not output
    )
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(
        linears=tuple(linears),
        total=sum(p.numel() for p in model.parameters()),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        kv_width=head * (getattr(config, "num_key_value_heads", None) or config.num_attention_heads),
    )
