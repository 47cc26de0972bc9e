"""A real engine and a real gateway, each in a process of its own, over the tiny base and tiny random versions."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from sqlalchemy import Engine

from deploy.api_keys import create_key
from deploy.config import ConsoleJob, EngineJob, GatewayJob, ServingConfig
from deploy.engines.client import EngineClient
from deploy.ledger.ledger import Entry, append, current
from deploy.versions.versions import publish_version
from infra.artifact import digest_dir, finished_record, write_record
from infra.database.connect import connect
from infra.database.schema import create_tables
from infra.settings import Config
from tests.tiny_adapter import build_tiny_adapter
from tests.waiting import wait
from training.generation.generator import Generator, Request
from training.stages.probe import Probe, ProbePrompt, take_probe
from training.weights.probe_prompts import CONVERSATIONS

BASE = "base-0123456789ab"
ENGINE_KEY = "engine-key-of-a-test"
SALT = "salt-of-a-test"
PROMPTS = ("refund", "the router is broken", "what is the capital of France?", "please answer with a json object")


def publish_tiny_version(base: Path, folder: Path, *, seed: int) -> str:
    """Make a random adapter with its probe and record, publish it below `folder`/versions, and return its name."""
    stage = folder / "stages" / str(seed)
    build_tiny_adapter(base, stage / "adapter", seed=seed)
    take_probe(base, stage / "adapter", "adapter", "float32", stage)
    record = finished_record(name=f"tiny {seed}", key=f"{seed:064d}", digest=digest_dir(stage / "adapter"))
    write_record(stage, record)
    return publish_version(stage, folder / "versions").name


def publish_many(base: Path, folder: Path, count: int) -> list[str]:
    """Names of `count` further versions, all different, made quickly: one adapter with its matrices scaled."""
    from safetensors.torch import load_file, save_file

    first = build_tiny_adapter(base, folder / "many" / "first", seed=7)
    weights = load_file(first / "adapter_model.safetensors")
    generator = Generator(base, dtype="float32", threads=1)
    ids = [
        generator.encode_chat([{"role": "user", "content": q}, {"role": "assistant", "content": a}])
        for q, a in CONVERSATIONS
    ]
    plain = generator.logprobs(None, ids)
    names = []
    for number in range(count):
        stage = folder / "many" / str(number)
        (stage / "adapter").mkdir(parents=True)
        (stage / "adapter" / "adapter_config.json").write_bytes((first / "adapter_config.json").read_bytes())
        scaled = {k: v * (0.5 + number / count) if "lora_B" in k else v for k, v in weights.items()}
        save_file(scaled, stage / "adapter" / "adapter_model.safetensors")
        generator.attach(f"n{number}", stage / "adapter")
        prompts = [
            ProbePrompt(ids=tuple(i), version=tuple(v), base=tuple(b))
            for i, v, b in zip(ids, generator.logprobs(f"n{number}", ids), plain, strict=True)
        ]
        (stage / "probe.json").write_text(Probe(dtype="float32", prompts=tuple(prompts)).model_dump_json())
        digest = digest_dir(stage / "adapter")
        write_record(stage, finished_record(name=f"many {number}", key=f"{number:064d}", digest=digest))
        names.append(publish_version(stage, folder / "versions").name)
    return names


def telling_seeds(base: Path, folder: Path, count: int) -> list[int]:
    """Seeds whose random adapters answer each prompt differently from one another, in characters that can be read."""
    generator = Generator(base, dtype="float32", threads=1)
    found: list[int] = []
    taken: set[str] = set()
    for seed in range(1, 100):
        name = str(seed)
        generator.attach(name, build_tiny_adapter(base, folder / "candidates" / name, seed=seed))
        prompts = [generator.encode_chat([{"role": "user", "content": prompt}]) for prompt in PROMPTS]
        answers = generator.generate([Request(prompt_ids=ids, adapter=name, max_tokens=8) for ids in prompts])
        texts = {answer.text for answer in answers}
        if all(text and "\ufffd" not in text for text in texts) and not texts & taken:
            found.append(seed)
            taken |= texts
        if len(found) == count:
            return found
    raise AssertionError(f"only {len(found)} of 99 random adapters can be told apart")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(
    module: str, job: Config, file: Path, health: str, extra: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m module file` until the block ends; wait until `health` answers."""
    file.write_text(job.model_dump_json())
    environment = {**os.environ, "RATCHET_ENGINE_KEY": ENGINE_KEY, "RATCHET_USER_SALT": SALT, "OMP_NUM_THREADS": "1"}
    environment |= extra or {}
    with file.with_suffix(".log").open("ab") as log:
        child = subprocess.Popen([sys.executable, "-m", module, str(file)], env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 600  # a hang is what is meant, not a busy machine
        while True:
            try:
                if httpx.get(health, timeout=10).is_success:
                    break
            except httpx.HTTPError:
                pass
            assert child.poll() is None, file.with_suffix(".log").read_text()[-3000:]
            assert time.monotonic() < deadline, file.with_suffix(".log").read_text()[-3000:]
            time.sleep(0.1)
        yield child
    finally:
        child.terminate()
        child.wait(120)


@dataclass
class Stack:
    """What the tests talk to."""

    folder: Path
    database: Engine
    engine_job: EngineJob
    gateway_job: GatewayJob
    versions: list[str]
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def engine_url(self) -> str:
        return f"http://127.0.0.1:{self.engine_job.port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_job.port}"

    @property
    def versions_dir(self) -> Path:
        return self.gateway_job.versions_dir

    def key(self, *scopes: str, tenant: str = "default") -> str:
        name = f"{tenant}:{','.join(scopes)}"
        if name not in self.keys:
            self.keys[name], _ = create_key(self.database, tenant=tenant, name="test", scopes=scopes)
        return self.keys[name]

    def client(self, *scopes: str, tenant: str = "default") -> httpx.Client:
        """A client of the gateway with a key of these scopes."""
        headers = {"Authorization": f"Bearer {self.key(*scopes, tenant=tenant)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)

    def engine(self) -> EngineClient:
        return EngineClient(self.engine_url, ENGINE_KEY)

    def say(self, action: str, version: str, *, tenant: str = "default", **fields: object) -> Entry:
        """Write a ledger line as it stands."""
        values = {"tenant": tenant, "action": action, "version": version, "actor": "test", "reason": "test", **fields}
        return append(self.database, Entry.model_validate(values), current(self.database, tenant).seq)

    def make_champion(self, version: str, *, tenant: str = "default") -> Entry:
        """All lines of a release at once, without a holdback."""
        previous = current(self.database, tenant).champion
        self.say("gated", version, tenant=tenant)
        self.say("canary", version, tenant=tenant, share=0.5, previous=previous)
        return self.say("champion", version, tenant=tenant, previous=previous)


def prepare(base: Path, folder: Path, *, versions: int, serving: ServingConfig | None = None) -> Stack:
    """Everything but the processes."""
    serving = serving or ServingConfig(dtype="float32", threads=1, max_tokens=12)
    url = f"sqlite:///{folder / 'ratchet.db'}"
    database = connect(url)
    create_tables(database)
    engine_port, gateway_port = free_port(), free_port()
    stack = Stack(
        folder=folder,
        database=database,
        engine_job=EngineJob(base_path=base, base_name=BASE, port=engine_port, serving=serving),
        gateway_job=GatewayJob(
            pipeline="desk",
            database_url=url,
            versions_dir=folder / "versions",
            base_name=BASE,
            engine_url=f"http://127.0.0.1:{engine_port}",
            port=gateway_port,
            serving=serving,
            console=ConsoleJob(home=folder, links={"MLflow": "http://127.0.0.1:9"}),
        ),
        versions=[publish_tiny_version(base, folder, seed=seed) for seed in telling_seeds(base, folder, versions)],
    )
    stack.say("baseline", BASE)
    return stack


@contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    """The stack with both processes up."""
    engine = process(
        "deploy.engines.embedded", stack.engine_job, stack.folder / "engine.json", f"{stack.engine_url}/health"
    )
    gateway = process("deploy.gateway", stack.gateway_job, stack.folder / "gateway.json", f"{stack.url}/readyz")
    with engine, gateway:
        yield stack


def wait_until_routed(stack: Stack, line: Entry) -> None:
    """Return when the gateway follows the ledger up to `line`."""
    routed(stack.url, line)


def routed(url: str, line: Entry) -> None:
    """Return when the gateway at `url` follows the ledger up to `line`."""
    wanted = f'ratchet_ledger_seq{{tenant="{line.tenant}"}} {float(line.seq)}'
    wait(f"{line.action} at {url}", lambda: wanted in httpx.get(f"{url}/metrics").text, pause=0.05)
