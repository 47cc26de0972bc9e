"""The embedded engine by itself: its HTTP contract, its limits, and what it refuses."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import httpx
import pytest

from deploy.config import EngineJob, ServingConfig
from deploy.engines.client import EngineClient, EngineRefusal
from deploy.engines.embedded_completions import _system_prefix
from deploy.engines.vllm import DIALECT as VLLM
from infra.errors import CorruptArtifact, NotFound, Unavailable, UserError
from tests.deploy.serving_stack import BASE, ENGINE_KEY, free_port, process
from tests.tiny_adapter import build_tiny_adapter
from tests.tiny_model import CHATML
from tests.waiting import wait
from training.generation.generator import Generator

HELLO = {"messages": [{"role": "user", "content": "hello"}], "temperature": 0}


@pytest.fixture(scope="module")
def folder(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("engine")
    for seed, name in enumerate(("one", "two"), 1):
        build_tiny_adapter(tiny_base, made / name, seed=seed)
    shutil.copytree(tiny_base, made / "whole")
    return made


@pytest.fixture(scope="module")
def url(tiny_base: Path, folder: Path) -> Iterator[str]:
    serving = ServingConfig(dtype="float32", threads=1, max_batch=2, max_waiting=2)
    job = EngineJob(base_path=tiny_base, base_name=BASE, port=free_port(), serving=serving)
    address = f"http://127.0.0.1:{job.port}"
    with process("deploy.engines.embedded", job, folder / "engine.json", f"{address}/health"):
        yield address


@pytest.fixture
def engine(url: str) -> Iterator[EngineClient]:
    with EngineClient(url, ENGINE_KEY) as client:
        yield client


def test_load_answer_unload(engine: EngineClient, folder: Path, tiny_base: Path) -> None:
    engine.load("one", folder / "one")
    engine.load("one", folder / "one")
    engine.load("whole", folder / "whole")
    assert engine.models() == [BASE, "one", "whole"]
    texts = {name: engine.chat({**HELLO, "model": name, "max_tokens": 8}).text for name in engine.models()}
    assert texts["whole"] == texts[BASE] != texts["one"]
    generator = Generator(tiny_base, dtype="float32", threads=1)
    generator.attach("one", folder / "one")
    ids = generator.encode("the customer cannot log in")
    for name, own in ((BASE, None), ("one", "one")):
        assert engine.prompt_logprobs(name, ids) == pytest.approx(generator.logprobs(own, [ids])[0], abs=1e-4)
    assert engine.unload("one")
    assert engine.unload("whole")
    with pytest.raises(EngineRefusal, match="does not exist") as refusal:
        engine.chat({**HELLO, "model": "one"})
    assert refusal.value.model_unknown


def test_names_are_never_reused(engine: EngineClient, folder: Path) -> None:
    engine.load("two", folder / "two")
    for _ in range(2):
        with pytest.raises(EngineRefusal, match="never reused") as refusal:
            engine.load("two", folder / "one")
        assert refusal.value.status == 409
        if "two" in engine.models():
            engine.unload("two")
    engine.load("two", folder / "two")


def test_bad_loads_are_refused_and_change_nothing(engine: EngineClient, folder: Path, tmp_path: Path) -> None:
    before = engine.models()
    with pytest.raises(CorruptArtifact, match="holds no files"):
        engine.load("nothing", tmp_path / "nothing")
    with pytest.raises(CorruptArtifact, match="its name says 0123456789abcdef"):
        engine.load("v0123456789abcdef", folder / "one")
    cut = tmp_path / "cut"
    shutil.copytree(folder / "one", cut)
    weights = cut / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(CorruptArtifact, match="cannot be read as safetensors"):
        engine.load("cut", cut)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "x.txt").write_text("x")
    with pytest.raises(NotFound, match="neither adapter_config"):
        engine.load("odd", tmp_path / "odd")
    with pytest.raises(NotFound, match="is not loaded"):
        try:
            engine.unload("odd")
        except EngineRefusal as refusal:
            raise NotFound(refusal.message) from refusal
    assert engine.models() == before


def test_stream_ends_on_the_version_it_began_with(engine: EngineClient, folder: Path, url: str) -> None:
    engine.load("one", folder / "one")
    body = {**HELLO, "model": "one", "max_tokens": 300}
    whole = engine.chat(body).text
    unloaded: list[float] = []

    def unload() -> None:
        with EngineClient(url, ENGINE_KEY) as other:
            assert other.unload("one")
        unloaded.append(time.monotonic())

    pieces: list[str] = []
    thread = threading.Thread(target=unload)
    headers = {"Authorization": f"Bearer {ENGINE_KEY}"}
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", json={**body, "stream": True}, headers=headers, timeout=60
    ) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data:") or "[DONE]" in line:
                continue
            delta = json.loads(line[5:])["choices"][0]["delta"].get("content")
            if delta and not any(pieces):
                thread.start()
            pieces.append(delta or "")
        ended = time.monotonic()
    thread.join()
    assert "".join(pieces) == whole
    assert unloaded[0] >= ended - 0.5, "it was taken away while an answer went through it"
    assert "one" not in engine.models()


def test_too_many_requests_are_told_to_come_again(url: str) -> None:
    statuses: list[tuple[int, str | None]] = []
    headers = {"Authorization": f"Bearer {ENGINE_KEY}"}

    def ask() -> None:
        answer = httpx.post(
            f"{url}/v1/chat/completions", json={**HELLO, "model": BASE, "max_tokens": 400}, headers=headers, timeout=120
        )
        statuses.append((answer.status_code, answer.headers.get("retry-after")))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for status, _ in statuses} == {200, 429}
    assert all(retry == "1" for status, retry in statuses if status == 429)
    assert sum(status == 200 for status, _ in statuses) >= 4


def test_client_that_leaves_frees_its_row(engine: EngineClient, url: str) -> None:
    headers = {"Authorization": f"Bearer {ENGINE_KEY}"}
    body = {**HELLO, "model": BASE, "max_tokens": 1900}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=0.3)
    with httpx.stream("POST", f"{url}/v1/chat/completions", json={**body, "stream": True}, headers=headers) as answer:
        next(answer.iter_lines())
    wait("a free engine", lambda: httpx.get(f"{url}/health").json()["requests"] == 0)


def test_client_that_leaves_a_queued_stream_leaves_the_queue(url: str) -> None:
    headers = {"Authorization": f"Bearer {ENGINE_KEY}"}
    body = {**HELLO, "model": BASE, "max_tokens": 1900, "stream": True}

    def size() -> int:
        return int(httpx.get(f"{url}/health").json()["requests"])

    def until(requests: int) -> None:
        wait(f"{requests} requests", lambda: size() == requests, pause=0.02)

    until(0)
    ask = partial(httpx.stream, "POST", f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)
    with ask() as first, ask() as second:  # both rows are taken
        running = [first.iter_lines(), second.iter_lines()]  # kept: an iterator that is dropped closes its stream
        assert all(next(lines).startswith("data:") for lines in running)
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as waiting:
            text = json.dumps(body)
            waiting.sendall(
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: engine\r\nAuthorization: Bearer {ENGINE_KEY}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
            )
            until(3)
        until(2)  # it left before its first token ...
        assert not any("[DONE]" in line for lines in running for line in islice(lines, 40)), "... while the others ran"
    until(0)


def test_errors_are_openais(engine: EngineClient, url: str) -> None:
    assert httpx.get(f"{url}/v1/models").status_code == 401
    long = {**HELLO, "messages": [{"role": "user", "content": "hello " * 3000}], "model": BASE}
    with pytest.raises(EngineRefusal, match="context length") as refusal:
        engine.chat(long)
    assert refusal.value.status == 400
    assert refusal.value.body["error"]["code"] == "context_length_exceeded"
    with pytest.raises(EngineRefusal, match="token ids from 0 to"):
        engine.prompt_logprobs(BASE, [1, 10_000_000])
    with EngineClient("http://127.0.0.1:9", ENGINE_KEY) as nowhere:
        assert not nowhere.healthy()
        with pytest.raises(Unavailable, match="does not answer"):
            nowhere.models()


def test_vllm_is_asked_for_plain_lora_only(folder: Path, tiny_base: Path, tmp_path: Path) -> None:
    assert VLLM.refuses(folder / "one") is None
    with EngineClient("http://127.0.0.1:9", ENGINE_KEY, dialect=VLLM) as client:
        with pytest.raises(UserError, match="whole model"):
            client.load("whole", folder / "whole")
        dora = build_tiny_adapter(tiny_base, tmp_path / "dora", seed=3, use_dora=True)
        with pytest.raises(UserError, match="use_dora"):
            client.load("dora", dora)


def test_loading_again_ends_an_unload_that_waits(engine: EngineClient, folder: Path, url: str) -> None:
    engine.load("one", folder / "one")
    headers = {"Authorization": f"Bearer {ENGINE_KEY}"}
    body = {**HELLO, "model": "one", "max_tokens": 600, "stream": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert not engine.unload("one", wait_seconds=0), "an answer goes through it"
        assert "one" not in engine.models()
        engine.load("one", folder / "one")
        for _ in lines:
            pass
    assert engine.chat({**HELLO, "model": "one", "max_tokens": 1}).model == "one"
    assert engine.unload("one")


def test_a_template_that_wants_a_question_answers_chats_with_a_system_message(tiny_base: Path) -> None:
    generator = Generator(tiny_base, dtype="float32", threads=1)
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]
    assert _system_prefix(generator, messages, generator.encode_chat(messages)) > 0
    asked = (
        "{% if messages[-1]['role'] == 'system' %}{{ raise_exception('No user query found in messages.') }}{% endif %}"
    )
    generator.chat.tokenizer.chat_template = asked + CHATML
    assert _system_prefix(generator, messages, generator.encode_chat(messages)) == 0
