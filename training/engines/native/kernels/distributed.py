"""Several processes that train one stage: every weight, gradient and moment is split among them (FSDP2).

    torchrun --nproc-per-node 2 -m training job.json

What is decided is decided by the first process and told to the others; what is written is gathered from all and written
by the first. With one process every function here does nothing, so callers need not ask.
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


def world() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def first() -> bool:
    """Whether this process is the one that decides and writes."""
    return world() == 1 or dist.get_rank() == 0


def wait() -> None:
    """Until everybody is here."""
    if world() > 1:
        dist.barrier()


def told(flag: bool) -> bool:
    """What the first process says, whatever this one would."""
    if world() == 1:
        return flag
    said = torch.tensor([int(flag)])
    dist.broadcast(said, src=0)
    return bool(said.item())


def mean(value: float) -> float:
    """Over all processes."""
    if world() == 1:
        return value
    total = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(total)
    return float(total.item()) / world()


def most(count: int) -> int:
    """The greatest count of all processes."""
    if world() == 1:
        return count
    found = torch.tensor([count])
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return int(found.item())


@contextmanager
def group(expected: int) -> Iterator[None]:
    """Join the processes that torchrun started; one process needs nobody.

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


def split(model: Any) -> Any:
    """`model` with each block's weights split among the processes; each block is gathered while it computes."""
    if world() == 1:
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


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A weight as one tensor, gathered from all processes (all have to ask)."""
    full = getattr(tensor, "full_tensor", None)
    found: torch.Tensor = full() if full is not None else tensor
    return found


def put(target: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a whole tensor into a weight; of a split one each process takes its part."""
    target.copy_(part_of(value, target))


def part_of(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor, split among the processes as `like` is."""
    placements = getattr(like, "placements", None)
    if placements is None:
        return value
    from torch.distributed.tensor import distribute_tensor

    split_weight: Any = like
    return distribute_tensor(value.to(like.device), split_weight.device_mesh, placements)


def save_optimizer(optimizer: Any, folder: Path) -> None:
    """The optimizer's state, gathered; written by the first process."""
    said = optimizer.state_dict()
    state = {at: {name: _gathered(value) for name, value in kept.items()} for at, kept in said["state"].items()}
    if first():
        torch.save({"state": state, "param_groups": said["param_groups"]}, folder / OPTIMIZER)
    wait()


def load_optimizer(optimizer: Any, folder: Path) -> None:
    """Put back what `save_optimizer` wrote; each process takes its part."""
    said = torch.load(folder / OPTIMIZER, weights_only=True, map_location="cpu")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    numbers = [number for group in said["param_groups"] for number in group["params"]]
    for number, weight in zip(numbers, weights, strict=True):
        for name, value in said["state"].get(number, {}).items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape and value.ndim:
                said["state"][number][name] = part_of(value, weight)
    optimizer.load_state_dict(said)
    wait()


def _gathered(value: Any) -> Any:
    return whole(value).cpu() if isinstance(value, torch.Tensor) else value
