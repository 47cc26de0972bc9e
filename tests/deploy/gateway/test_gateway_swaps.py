"""Swaps under load: no request is lost, and every answer is the one that the version it names would give."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import httpx
import pytest

from deploy.ledger.ledger import current
from deploy.versions.parity import prover
from feedback.store.store import Store
from tests.deploy.serving_stack import BASE, PROMPTS, Stack, prepare, running, wait_until_routed
from training.generation.generator import Generator, Request


def _expected(stack: Stack, base: Path) -> dict[tuple[str, str], str]:
    """Greedy answer of every version to every prompt, computed apart from the engine."""
    generator = Generator(base, dtype="float32", threads=1)
    for version in stack.versions:
        generator.attach(version, stack.versions_dir / version / "adapter")
    asked = list(itertools.product([BASE, *stack.versions], PROMPTS))
    requests = [
        Request(
            prompt_ids=generator.encode_chat([{"role": "user", "content": prompt}]),
            adapter=None if version == BASE else version,
            max_tokens=8,
        )
        for version, prompt in asked
    ]
    return {key: answer.text for key, answer in zip(asked, generator.generate(requests), strict=True)}


def _swap_under_load(stack: Stack, base: Path, *, clients: int, requests: int, swaps: int) -> None:
    expected = _expected(stack, base)
    for prompt in PROMPTS:
        answers = [expected[version, prompt] for version in [BASE, *stack.versions]]
        assert len(set(answers)) == len(answers), "answers must tell the versions apart"
    numbers = itertools.count()
    failures: list[str] = []
    answered: list[tuple[str, str]] = []
    swapped = threading.Event()

    def ask() -> None:
        with stack.client("chat") as http:
            # Load goes on until the last swap is through, however fast the machine is.
            while (number := next(numbers)) < requests or not swapped.is_set():
                prompt = PROMPTS[number % len(PROMPTS)]
                body = {
                    "model": "desk",
                    "messages": [{"role": "user", "content": prompt}],
                    "temperature": 0,
                    "max_tokens": 8,
                }
                said = ""
                try:
                    answer = http.post("/v1/chat/completions", json=body)
                    said = answer.text
                    value = answer.json()
                    version, text = value["model"], value["choices"][0]["message"]["content"]
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    failures.append(f"request {number}: {error!r} {said}")
                    continue
                if text != expected[version, prompt]:
                    failures.append(f"request {number}: {version} answered {text!r}, not {expected[version, prompt]!r}")
                answered.append((value["id"], version))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        with stack.engine() as engine:
            prove = prover(engine, stack.versions_dir, base_version=BASE)
            for number in range(swaps):
                champion = current(stack.database, "default").champion
                version = stack.versions[number % len(stack.versions)]
                prove(version)
                line = stack.make_champion(version)
                wait_until_routed(stack, line)
                if champion is not None and champion != BASE and number % 3 == 0:
                    engine.unload(champion)
    finally:
        swapped.set()
        for thread in threads:
            thread.join(120)
    assert failures == []
    assert len(answered) >= requests
    assert {version for _, version in answered} >= set(stack.versions)
    store = Store(stack.database)
    kept = store.interactions_of({("default", interaction_id) for interaction_id, _ in answered})
    assert {(i.interaction_id, i.version) for i in kept.values()} == set(answered)


def test_swaps_lose_nothing_and_mix_nothing_up(serving: Stack, tiny_base: Path) -> None:
    _swap_under_load(serving, tiny_base, clients=8, requests=200, swaps=10)


@pytest.mark.slow
def test_fifty_swaps_under_thirty_two_clients(tiny_base: Path, tmp_path: Path) -> None:
    with running(prepare(tiny_base, tmp_path, versions=5)) as stack:
        _swap_under_load(stack, tiny_base, clients=32, requests=1000, swaps=50)
