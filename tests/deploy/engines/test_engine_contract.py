"""What every engine must do, embedded or vLLM: the same tests for both.

`make test-vllm` runs them on vLLM, in the environment that `make vllm-cpu` makes; elsewhere only the embedded engine is
asked, and the vLLM half is skipped and says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from deploy.config import EngineJob, ServingConfig
from deploy.engines.client import AsyncEngineClient, EngineClient, EngineRefusal
from deploy.engines.dialect import EMBEDDED, Dialect
from deploy.engines.vllm import DIALECT as VLLM
from deploy.gateway.backends.adapter_loading import AdapterLoader
from deploy.gateway.backends.replicas import Replica, ReplicaPool
from deploy.versions.parity import ParityError, check_parity, prover
from infra.errors import RatchetError
from tests.deploy.serving_stack import BASE, ENGINE_KEY, free_port, publish_tiny_version
from tests.tiny_model import build_tiny_base
from training.generation.generator import DType
from training.stages.probe import read_probe

ROOT = Path(__file__).resolve().parents[3]
VLLM_PYTHON = Path(os.environ.get("RATCHET_VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
ASKED = os.environ.get("RATCHET_TEST_VLLM") == "1"
HELLO = {"messages": [{"role": "user", "content": "refund"}], "temperature": 0, "max_tokens": 8}


class Running:
    """An engine that can be killed and started again at the same address."""

    def __init__(
        self, dialect: Dialect, base: Path, folder: Path, *, dtype: DType = "float32", rank: int = 8, threads: int = 1
    ) -> None:
        self.dialect, self.base, self.folder, self.port = dialect, base, folder, free_port()
        self.dtype, self.rank, self.threads = dtype, rank, threads
        self.url = f"http://127.0.0.1:{self.port}"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self.folder / "engine.log").open("ab")
        self._child = subprocess.Popen(self._argv(), env=self._env(), stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 900
        while True:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=5).is_success:
                    return
            assert self._child.poll() is None and time.monotonic() < deadline, self._said()
            time.sleep(0.3)

    def kill(self) -> None:
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait(30)

    def client(self) -> EngineClient:
        return EngineClient(self.url, ENGINE_KEY, dialect=self.dialect)

    def _argv(self) -> list[str]:
        if self.dialect is EMBEDDED:
            serving = ServingConfig(dtype=self.dtype, threads=self.threads)
            job = EngineJob(base_path=self.base, base_name=BASE, port=self.port, serving=serving)
            (self.folder / "engine.json").write_text(job.model_dump_json())
            return [sys.executable, "-m", "deploy.engines.embedded", str(self.folder / "engine.json")]
        command = [str(VLLM_PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.base)]
        command += ["--served-model-name", BASE, "--host", "127.0.0.1", "--port", str(self.port), "--dtype", self.dtype]
        command += ["--enable-lora", "--max-loras", "2", "--max-cpu-loras", "4", "--max-lora-rank", str(self.rank)]
        return [*command, "--max-model-len", "1024", "--enforce-eager", "--api-key", ENGINE_KEY]

    def _env(self) -> dict[str, str]:
        ours = {
            "RATCHET_ENGINE_KEY": ENGINE_KEY,
            "OMP_NUM_THREADS": str(self.threads),
            "HF_HUB_OFFLINE": "1",
            "DO_NOT_TRACK": "1",
        }
        theirs = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
        # Without it the first request through an adapter waits for C++ to be compiled, minutes on a busy machine.
        theirs |= {"TORCHDYNAMO_DISABLE": "1"}
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" or self.dialect is EMBEDDED}
        return {**kept, **ours, **(theirs if self.dialect is VLLM else {})}

    def _said(self) -> str:
        return (self.folder / "engine.log").read_text()[-3000:]


@pytest.fixture(scope="module", params=[EMBEDDED, VLLM], ids=lambda dialect: dialect.name)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if request.param is VLLM and not ASKED:
        pytest.skip("vLLM is tested by `make test-vllm`")
    folder = tmp_path_factory.mktemp("contract")
    # Heads of 64: vLLM's attention on CPUs knows no smaller ones than 32.
    found = Running(request.param, build_tiny_base(folder / "base", hidden=256), folder)
    try:
        found.start()
        yield found
    finally:
        found.kill()


@pytest.fixture(scope="module")
def versions(running: Running) -> list[str]:
    return [publish_tiny_version(running.base, running.folder, seed=seed) for seed in (1, 2)]


def weights(running: Running, version: str) -> Path:
    return running.folder / "versions" / version / "adapter"


def test_it_answers_whole_and_streamed_alike_and_stops_where_told(running: Running) -> None:
    with running.client() as engine:
        whole = engine.chat({**HELLO, "model": BASE})
        assert whole.usage.completion_tokens <= 8 and whole.finish_reason in ("length", "stop")
        text = whole.text
        assert engine.chat({**HELLO, "model": BASE, "max_tokens": 3}).usage.completion_tokens == 3
        stop = text[2:4]
        if stop.strip():
            cut = engine.chat({**HELLO, "model": BASE, "stop": [stop]})
            assert cut.finish_reason == "stop" and cut.text == text[: text.index(stop)]
        with pytest.raises(EngineRefusal) as refusal:
            engine.chat({**HELLO, "model": "nobody"})
        assert refusal.value.model_unknown
        with pytest.raises(EngineRefusal) as refusal:
            engine.chat({**HELLO, "model": BASE, "messages": [{"role": "user", "content": "hello " * 3000}]})
        assert refusal.value.status == 400

    async def streamed() -> str:
        client = AsyncEngineClient(running.url, ENGINE_KEY, dialect=running.dialect)
        pieces = [json.loads(data) async for data in client.stream({**HELLO, "model": BASE})]
        await client.close()
        return "".join(c["delta"].get("content") or "" for piece in pieces for c in piece["choices"])

    assert asyncio.run(streamed()) == text


def test_an_adapter_is_loaded_proved_told_apart_and_taken_away(running: Running, versions: list[str]) -> None:
    with running.client() as engine:
        prove = prover(engine, running.folder / "versions", base_version=BASE)
        for version in versions:
            facts = prove(version)
            assert (facts.relative_error or 0.0) < 0.05 and (facts.cosine or 0.0) > 0.99, facts
        engine.load(versions[0], weights(running, versions[0]))  # again: harmless
        # A wrong adapter under the right name.
        with pytest.raises(ParityError, match="is not that version"):
            check_parity(engine, versions[0], read_probe(running.folder / "versions" / versions[1]), base_name=BASE)
        with pytest.raises(RatchetError):
            engine.load("v-missing", running.folder / "nowhere")
        assert engine.unload(versions[1])
        with pytest.raises(EngineRefusal) as refusal:
            engine.chat({**HELLO, "model": versions[1]})
        assert refusal.value.model_unknown


def test_what_is_damaged_never_answers(running: Running, versions: list[str], tmp_path: Path) -> None:
    """Other key prefixes, and a file cut short: refused at loading, or by the probe where the engine says nothing."""
    from safetensors.torch import load_file, save_file

    source = weights(running, versions[1])
    for name in ("prefixes", "cut"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    tensors = load_file(source / "adapter_model.safetensors")
    renamed = {key.replace("base_model.model.model.", "base_model.model.other."): t for key, t in tensors.items()}
    save_file(renamed, tmp_path / "prefixes" / "adapter_model.safetensors")
    cut = (source / "adapter_model.safetensors").read_bytes()[:-64]
    (tmp_path / "cut" / "adapter_model.safetensors").write_bytes(cut)
    probe = read_probe(running.folder / "versions" / versions[1])
    with running.client() as engine:
        for name in ("prefixes", "cut"):
            with pytest.raises(RatchetError):
                engine.load(f"damaged-{name}", tmp_path / name)
                check_parity(engine, f"damaged-{name}", probe, base_name=BASE)


def test_after_a_restart_versions_are_loaded_and_proved_again_before_they_answer(
    running: Running, versions: list[str]
) -> None:
    """The gateway's own way of asking, with the engine killed in between, and beyond its limit of loaded versions."""

    def replica(limit: int = 64) -> Replica:
        loading = AdapterLoader(
            url=running.url,
            key=ENGINE_KEY,
            dialect=running.dialect,
            versions_dir=running.folder / "versions",
            base_version=BASE,
            base_name=BASE,
            tolerance=None,
            limit=limit,
        )
        return Replica(AsyncEngineClient(running.url, ENGINE_KEY, dialect=running.dialect), loading)

    async def ask(engines: ReplicaPool, version: str) -> str:
        body = await engines.chat(version, dict(HELLO), version)
        assert body.model == version
        return body.text

    async def before_and_after() -> None:
        engines = ReplicaPool([replica()])
        first = await ask(engines, versions[0])
        running.kill()
        await asyncio.to_thread(running.start)
        assert versions[0] not in await asyncio.to_thread(lambda: running.client().models())
        assert await ask(engines, versions[0]) == first
        await engines.close()

    async def shedding() -> None:
        import deploy.gateway.backends.adapter_loading as loading

        engines = ReplicaPool([replica(limit=1)])
        idle, loading.IDLE_SECONDS = loading.IDLE_SECONDS, 0.0
        try:
            engines.pinned = lambda: frozenset({versions[0]})
            await engines.ensure(versions[0])
            await engines.ensure(versions[1])
            await engines.ensure(versions[0])
            loaded = await asyncio.to_thread(lambda: running.client().models())
            assert versions[0] in loaded and versions[1] not in loaded, "pinned stays, the other goes"
        finally:
            loading.IDLE_SECONDS = idle
            await engines.close()

    asyncio.run(before_and_after())
    asyncio.run(shedding())


def test_a_second_replica_answers_when_the_first_is_gone(running: Running, versions: list[str]) -> None:
    def replica(url: str) -> Replica:
        loading = AdapterLoader(
            url=url,
            key=ENGINE_KEY,
            dialect=running.dialect,
            versions_dir=running.folder / "versions",
            base_version=BASE,
            base_name=BASE,
            tolerance=None,
        )
        return Replica(AsyncEngineClient(url, ENGINE_KEY, dialect=running.dialect), loading)

    async def ask() -> None:
        engines = ReplicaPool([replica(f"http://127.0.0.1:{free_port()}"), replica(running.url)])
        for version in (BASE, versions[0]):
            body = await engines.chat(version, dict(HELLO), version)
            assert body.model == version
            events = [event async for event in engines.stream(version, dict(HELLO), version)]
            assert len(events) > 1
        with pytest.raises(RatchetError):
            await engines.warm(versions[1])
        await engines.close()

    asyncio.run(ask())
