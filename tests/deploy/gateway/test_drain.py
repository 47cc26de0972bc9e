"""SIGTERM: gateway and engine give their running answers to the end, take no new ones, and go."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from deploy.config import ServingConfig
from tests.deploy.serving_stack import Stack, prepare, process
from tests.waiting import wait

WORDS = 300
"""Tokens of an answer: long enough that the signal comes in its middle."""


class Reader:
    """One user who reads a streamed answer, and what came of it."""

    def __init__(self, stack: Stack) -> None:
        self.began = threading.Event()
        self.chunks: list[str] = []
        self.error: Exception | None = None
        self.client = stack.client("chat")
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        asked = {
            "model": "champion",
            "messages": [{"role": "user", "content": "tell me a long story"}],
            "max_tokens": WORDS,
            "stream": True,
            "temperature": 1.0,
            "seed": 3,
        }
        try:
            with self.client.stream("POST", "/v1/chat/completions", json=asked) as answer:
                assert answer.is_success, answer.read().decode()
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        self.chunks.append(line.removeprefix("data: "))
                        self.began.set()
        except (httpx.HTTPError, AssertionError) as error:
            self.error = error
            self.began.set()

    def ended_well(self) -> bool:
        """Whether the answer is whole: its last part says why it ended."""
        self.thread.join(60)
        reasons = [json.loads(c)["choices"][0]["finish_reason"] for c in self.chunks[:-1] if json.loads(c)["choices"]]
        return self.error is None and self.chunks[-1] == "[DONE]" and reasons[-1] in ("stop", "length")


@pytest.mark.parametrize("who", ["gateway", "engine"])
def test_running_answers_end_before_the_process_does(tiny_base: Path, tmp_path: Path, who: str) -> None:
    serving = ServingConfig(dtype="float32", threads=1, max_tokens=WORDS)
    stack = prepare(tiny_base, tmp_path, versions=1, serving=serving)
    stack.make_champion(stack.versions[0])
    engine_file, gateway_file = tmp_path / "engine.json", tmp_path / "gateway.json"
    with (
        process("deploy.engines.embedded", stack.engine_job, engine_file, f"{stack.engine_url}/health") as engine,
        process("deploy.gateway", stack.gateway_job, gateway_file, f"{stack.url}/readyz") as gateway,
    ):
        wait("the gateway", lambda: stack.client("chat").get("/v1/models").is_success)
        leaving: subprocess.Popen[bytes] = gateway if who == "gateway" else engine
        reader = Reader(stack)
        assert reader.began.wait(240) and reader.error is None, reader.error
        seen = len(reader.chunks)
        leaving.send_signal(signal.SIGTERM)
        assert reader.ended_well(), (reader.error, reader.chunks[-2:])
        assert len(reader.chunks) > seen, "the answer was over before the signal: nothing was tried"
        assert leaving.wait(240) == -signal.SIGTERM  # uvicorn hands the signal on when all is over
        # Whoever asks now is told so at once, in a way that a client can act on.
        if who == "gateway":
            with pytest.raises(httpx.ConnectError):
                stack.client("chat").get("/v1/models")
        else:
            late = stack.client("chat").post(
                "/v1/chat/completions", json={"model": "champion", "messages": [{"role": "user", "content": "hi"}]}
            )
            assert late.status_code == 503 and late.json()["error"]["message"]
