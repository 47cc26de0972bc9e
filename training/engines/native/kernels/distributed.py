"""Train one stage by several processes: every weight, gradient and moment is sharded among them (FSDP2).

    torchrun --nproc-per-node 2 -m training job.json

Rank 0 decides and broadcasts; what is written is gathered from all and written by rank 0. With one process every
function here does nothing, so callers need not ask.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from infra.errors import UserError

OPTIMIZER = "optimizer.pt"


def world_size() -> int:
    """Count the processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_rank_zero() -> bool:
    """Tell whether this process is the one that decides and writes (rank 0)."""
    return world_size() == 1 or dist.get_rank() == 0


def barrier() -> None:
    """Wait until every process has come here (barrier)."""
    if world_size() > 1:
        dist.barrier()


def broadcast_bool(flag: bool) -> bool:
    """Broadcast a bool from rank 0."""
    if world_size() == 1:
        return flag
    decided = torch.tensor([int(flag)])
    dist.broadcast(decided, src=0)
    return bool(decided.item())


def all_reduce_mean(value: float) -> float:
    """All-reduce: the mean over all processes."""
    if world_size() == 1:
        return value
    total = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(total)
    return float(total.item()) / world_size()


def all_reduce_max(count: int) -> int:
    """All-reduce: the maximum over all processes."""
    if world_size() == 1:
        return count
    largest = torch.tensor([count])
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest.item())


@contextmanager
def process_group(expected: int) -> Iterator[None]:
    """Join the process group that torchrun started; one process needs none.

    Raises:
        UserError: there are not as many as the job is for.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != expected:
        raise UserError(
            f"the job is for {expected} process(es), {started} were started; run it with torchrun "
            f"--nproc-per-node {expected} -m training job.json"
        )
    if expected == 1:
        yield
        return
    from training.hardware import accelerators

    gpus = len(accelerators().gpus)
    if 0 < gpus < expected:  # each has to have one of its own
        raise UserError(
            f"the job is for {expected} processes, and torch sees {gpus} GPU(s); expected training.processes: {gpus} "
            "or fewer (CUDA_VISIBLE_DEVICES hides GPUs from torch)"
        )
    # Numbers that processes tell one another go over the CPU, weights over the GPUs where there are any.
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        yield
    finally:
        dist.destroy_process_group()


def shard_model(model: Any) -> Any:
    """Shard each block's weights of `model` among the processes; each block is gathered while it computes."""
    if world_size() == 1:
        return model
    from torch.distributed.fsdp import fully_shard

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    blocks = getattr(getattr(inner, "model", None), "layers", None)
    if blocks is None:
        raise UserError(f"a model of type {inner.config.model_type!r} keeps its blocks elsewhere than in model.layers; "
                        "train it in one process")  # fmt: skip
    for block in blocks:
        fully_shard(block)
    fully_shard(model)
    return model


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Gather a sharded weight from all processes as one tensor (all have to ask)."""
    gather = getattr(tensor, "full_tensor", None)
    full: torch.Tensor = gather() if gather is not None else tensor
    return full


def copy_sharded(target: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a full tensor into a weight; of a sharded one each process takes its part."""
    target.copy_(shard_like(value, target))


def shard_like(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Shard a full tensor among the processes as `like` is."""
    placements = getattr(like, "placements", None)
    if placements is None:
        return value
    from torch.distributed.tensor import distribute_tensor

    split_weight: Any = like
    return distribute_tensor(value.to(like.device), split_weight.device_mesh, placements)


def save_optimizer(optimizer: Any, folder: Path) -> None:
    """Gather the optimizer's state and write it from rank 0."""
    saved = optimizer.state_dict()
    state = {at: {name: _gathered(value) for name, value in kept.items()} for at, kept in saved["state"].items()}
    if is_rank_zero():
        torch.save({"state": state, "param_groups": saved["param_groups"]}, folder / OPTIMIZER)
    barrier()


def load_optimizer(optimizer: Any, folder: Path) -> None:
    """Load what `save_optimizer` wrote; each process takes its part."""
    saved = torch.load(folder / OPTIMIZER, weights_only=True, map_location="cpu")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    for number, weight in zip(numbers, weights, strict=True):
        for name, value in saved["state"].get(number, {}).items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape and value.ndim:
                saved["state"][number][name] = shard_like(value, weight)
    optimizer.load_state_dict(saved)
    barrier()


def _gathered(value: Any) -> Any:
    return full_tensor(value).cpu() if isinstance(value, torch.Tensor) else value
