"""AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): LoRA as P Lambda Q, whose ranks go to the layers that need them.

Every layer begins with rank `start_rank`; importance scores of the triplets (sensitivity and its uncertainty, equations
7 to 12) decide which singular values are set to zero, until on average `rank` are left; the last third of the stage
trains those. A penalty keeps P and Q close to orthogonal (equation 4). It is exactly a LoRA with a rank of its own for
each layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from infra.settings import Config
from training.tuners.tuner import LoraMatrices, ModelShape, TrainingHooks, Tuner

if TYPE_CHECKING:
    import torch


class AdaloraOptions(Config):
    """Options of AdaLoRA."""

    rank: int = Field(default=8, ge=1, le=512)
    """Rank of each layer in the end, on average."""
    start_rank: int = Field(default=12, ge=2, le=1024)
    """Rank of each layer in the beginning (the paper: one and a half times the final one)."""
    alpha: float = Field(default=32, gt=0)
    """Scale: the update is multiplied by alpha / start_rank."""
    orthogonality: float = Field(default=0.1, ge=0)
    """Weight of the penalty (the paper's gamma)."""
    warm: float = Field(default=0.1, ge=0, lt=0.5)
    """Share of the steps before ranks are taken away."""
    settle: float = Field(default=0.3, gt=0, lt=0.5)
    """Share of the steps, at the end, in which the ranks stay as they are."""
    save_as_lora: bool = False
    """Save the plain LoRA that equals it, for engines that know nothing else (vLLM). It is larger, is served beside
    others on the one loaded base, and a stage that goes on from it goes on as plain LoRA."""

    @model_validator(mode="after")
    def _shrinks(self) -> AdaloraOptions:
        if self.rank >= self.start_rank:
            raise ValueError(f"start_rank ({self.start_rank}) must be greater than rank ({self.rank})")
        return self


def attach(model: Any, options: AdaloraOptions, base_name: str) -> Any:
    """Wrap `model` with a fresh adapter called "default". How many steps there are is said later (`begin`)."""
    from peft import AdaLoraConfig

    from training.tuners.attach import attach_convertible

    config = AdaLoraConfig(
        target_r=options.rank,
        init_r=options.start_rank,
        lora_alpha=options.alpha,
        orth_reg_weight=options.orthogonality,
        tinit=int(1000 * options.warm),
        tfinal=int(1000 * options.settle),
        total_step=1000,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return attach_convertible(model, config, options.save_as_lora)


def save(model: Any, folder: Path) -> None:
    """Peft's files, or those of the plain LoRA that equals it."""
    from training.tuners.attach import save_convertible

    save_convertible(model, folder)


def parameters(shape: ModelShape, options: AdaloraOptions) -> int:
    """start_rank (inputs + outputs + 1) for each linear layer."""
    return sum(options.start_rank * (inputs + outputs + 1) for _, inputs, outputs in shape.linears)


def begin(model: Any, steps: int) -> None:
    """Lay the schedule, kept as shares of a thousand until now, over the real number of steps."""
    config = model.peft_config["default"]
    config.tinit = round(config.tinit * steps / config.total_step)
    config.tfinal = max(1, round(config.tfinal * steps / config.total_step))
    config.total_step = steps


def penalty(model: Any) -> torch.Tensor:
    """gamma x the mean over all P and Q of ||P'P - 1||^2 and ||QQ' - 1||^2 (equation 4), as peft's forward adds it."""
    import torch

    config = model.peft_config["default"]
    terms = []
    for name, parameter in model.named_parameters():
        if ".lora_A.default" in name or ".lora_B.default" in name:
            product = parameter @ parameter.T if ".lora_A." in name else parameter.T @ parameter
            terms.append(torch.linalg.matrix_norm(product - torch.eye(len(product)).to(product)))
    total: torch.Tensor = torch.stack(terms).mean() * config.orth_reg_weight
    return total


def after_step(model: Any, step: int) -> None:
    """Score the triplets and set to zero what the budget of this step has no room for."""
    config = model.peft_config["default"]
    if config.total_step - config.tfinal > config.tinit:  # a stage of a handful of steps leaves no room to take away
        model.base_model.update_and_allocate(step)


def state(model: Any) -> dict[str, torch.Tensor]:
    """The smoothed scores, and which triplets are left."""
    import torch

    allocator = model.base_model.rankallocator
    kept = {
        f"{kind}/{name}": tensor
        for kind in ("ipt", "exp_avg_ipt", "exp_avg_unc")
        for name, tensor in getattr(allocator, kind).items()
    }
    pattern = model.peft_config["default"].rank_pattern or {}
    return kept | {f"rank_pattern/{name}": torch.tensor(left) for name, left in pattern.items()}


def restore(model: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Put `state` back, each score on the device of the weight that it is of."""
    allocator = model.base_model.rankallocator
    weights = dict(model.get_base_model().named_parameters())
    pattern = {}
    for name, tensor in tensors.items():
        kind, _, of = name.partition("/")
        if kind == "rank_pattern":
            pattern[of] = tensor.tolist()
        else:
            getattr(allocator, kind)[of] = tensor.to(weights[of].device)
    model.peft_config["default"].rank_pattern = pattern or None


def to_lora(tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], widths: Mapping[str, int]) -> LoraMatrices:
    """Convert: W + (alpha / r) P Lambda Q is the LoRA with B' = P Lambda and A' = Q, each layer at the rank left."""
    scale = config["lora_alpha"] / (config["init_r"] + 1e-5)  # peft divides by that much
    layers = {}
    for key, values in tensors.items():
        if key.endswith(".lora_E") and values.shape[0]:
            module = key.removesuffix(".lora_E")
            up = tensors[f"{module}.lora_B"] * values.view(1, -1) * scale
            layers[module] = (tensors[f"{module}.lora_A"], up)
    return layers


TUNER = Tuner(
    name="adalora",
    summary="LoRA that moves its ranks to the layers that need them (Zhang et al. 2023)",
    options=AdaloraOptions,
    attach=attach,
    parameters=parameters,
    peft_type="ADALORA",
    served="merged",
    to_lora=to_lora,
    save=save,
    cost=1.3,
    hooks=TrainingHooks(begin=begin, penalty=penalty, after_step=after_step, state=state, restore=restore),
)
