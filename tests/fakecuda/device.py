"""What torch.cuda asks of a driver, answered for the pretended device: count, properties, streams, memory figures."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import types
from typing import Any

LIBRARY: Any = None
MEMORY = 16 * 2**30
CAPABILITY = (9, 0)
"""As a Hopper card's, which has bfloat16."""
KINDS = (
    "allocated_bytes", "reserved_bytes", "active_bytes", "requested_bytes", "inactive_split_bytes", "allocation",
    "segment", "active", "inactive_split",
)  # fmt: skip


def held() -> tuple[int, int]:
    """Bytes that lie on the pretended devices now, and the most that did."""
    return int(LIBRARY.fake_cuda_held()), int(LIBRARY.fake_cuda_peak())


def waits() -> int:
    """How often something waited for the device: `.item()` and copies to the CPU."""
    return int(LIBRARY.fake_cuda_syncs())


def install(devices: int, library: str) -> None:
    """Make this process see `devices` GPUs. Right after torch is imported; it cannot be undone."""
    global LIBRARY
    import torch

    LIBRARY = ctypes.CDLL(library)
    for name in ("held", "peak", "syncs"):
        getattr(LIBRARY, f"fake_cuda_{name}").restype = ctypes.c_int64
    LIBRARY.fake_cuda_resize.argtypes = (ctypes.c_void_p, ctypes.c_int64)
    for name, what in _driver(devices).items():
        setattr(torch._C, name, what)
    for name, what in _runtime(devices).items():
        setattr(torch.cuda, name, what)
    for module in (sys.modules["torch.cuda.random"], sys.modules["torch.cuda.memory"]):
        for name in ("_lazy_init", "_lazy_call", "is_initialized", "device_count", "mem_get_info"):
            if hasattr(module, name):
                setattr(module, name, getattr(torch.cuda, name))
    _storages()


def _nothing(*_: Any, **__: Any) -> None:
    """For what a real driver does and this one need not."""


def _switch(devices: int) -> Any:
    def switch(index: int) -> int:
        old = int(LIBRARY.fake_cuda_current())
        if index >= devices:
            raise RuntimeError("CUDA error: invalid device ordinal (pretended CUDA)")
        if index >= 0:
            LIBRARY.fake_cuda_set(index)
        return old

    return switch


def _statistics(device: Any = None) -> dict[str, Any]:
    now, most = held()
    kinds = {"current": now, "peak": most, "allocated": 0, "freed": 0}
    one = {name: {"all": kinds, "small_pool": kinds, "large_pool": kinds} for name in KINDS}
    return {**one, "num_alloc_retries": 0, "num_ooms": 0}


def _driver(devices: int) -> dict[str, Any]:
    """What torch asks of its C++ side."""
    switch = _switch(devices)
    quiet = ("init", "synchronize", "emptyCache", "resetAccumulatedMemoryStats", "ipc_collect", "set_sync_debug_mode")
    return {
        **{f"_cuda_{name}": _nothing for name in quiet},
        "_cuda_getDeviceCount": lambda: devices,
        "_cuda_isInBadFork": lambda: False,
        "_cuda_getDevice": lambda: LIBRARY.fake_cuda_current(),
        "_cuda_setDevice": switch,
        "_cuda_exchangeDevice": switch,
        "_cuda_maybeExchangeDevice": switch,
        "_cuda_memoryStats": _statistics,
        "_cuda_resetPeakMemoryStats": lambda *_: LIBRARY.fake_cuda_reset_peak(),
        "_cuda_getArchFlags": lambda: "sm_90",
        "_cuda_get_sync_debug_mode": lambda: 0,
        "_cuda_getCompiledVersion": lambda: 13000,
        "_cuda_getCurrentRawStream": lambda *_: 0,
    }


class Stream:
    """A stream, or an event: everything is done when it is asked for."""

    cuda_stream, stream_id, device_index, device_type = 0, 0, 0, 1
    synchronize = wait_stream = wait_event = record = wait = __exit__ = _nothing

    def __init__(self, device: Any = None, **_: Any) -> None:
        import torch

        self.device = torch.device("cuda", LIBRARY.fake_cuda_current())

    def query(self, *_: Any) -> bool:
        return True

    def __enter__(self) -> bool:
        return True

    def elapsed_time(self, end: Any) -> float:
        return 0.0

    def record_event(self, event: Any = None) -> Any:
        return event or Stream()


def _runtime(devices: int) -> dict[str, Any]:
    """What torch.cuda says to its callers."""
    import torch

    properties = types.SimpleNamespace(
        name="Pretended GPU", major=CAPABILITY[0], minor=CAPABILITY[1], total_memory=MEMORY, multi_processor_count=132,
        warp_size=32, max_threads_per_multi_processor=2048, regs_per_multiprocessor=65536, is_integrated=0,
        gcnArchName="", uuid="0", L2_cache_size=2**20, shared_memory_per_block_optin=2**17,
        shared_memory_per_block=2**15,
    )  # fmt: skip
    stream, switch = Stream(), _switch(devices)
    return {
        "_lazy_init": _nothing,
        "is_initialized": lambda: True,
        "_initialized": True,
        "_exchange_device": switch,
        "_maybe_exchange_device": switch,
        "get_device_properties": lambda *_: properties,
        "_get_device_properties": lambda *_: properties,
        "is_available": lambda: devices > 0,
        "device_count": lambda: devices,
        "get_device_capability": lambda *_: CAPABILITY,
        "get_device_name": lambda *_: properties.name,
        "current_stream": lambda *_: stream,
        "default_stream": lambda *_: stream,
        "Stream": Stream,
        "Event": Stream,
        "stream": contextlib.nullcontext,
        "is_bf16_supported": lambda *_, **__: CAPABILITY >= (8, 0),
        "mem_get_info": lambda *_: (MEMORY - held()[0], MEMORY),
        "_lazy_call": lambda call, **_: call(),
        "default_generators": tuple(torch.Generator(device=f"cuda:{index}") for index in range(devices)),
    }


def _storages() -> None:
    """A CPU build knows no storage of the device by itself."""
    import torch

    base: Any = torch._C.StorageBase
    make, resize = base.__new__, base.resize_

    def storage(cls: Any, *args: Any, **kwargs: Any) -> Any:
        device = torch.device(kwargs.get("device") or "cpu")
        if device.type != "cuda":
            return make(cls, *args, **kwargs)
        return torch.empty(*args, dtype=torch.uint8, device=device).untyped_storage()

    def resized(self: Any, size: int) -> Any:
        if self.device.type != "cuda":
            return resize(self, size)
        LIBRARY.fake_cuda_resize(self._cdata, size)
        return self

    torch.UntypedStorage.resize_ = resized  # type: ignore[method-assign]
    torch.UntypedStorage.__new__ = staticmethod(storage)  # type: ignore[method-assign]
