"""The champion's confidence, asked of a real engine over a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.config import ENGINE_KEY as KEY_NAME
from deploy.config import EngineJob, ServingConfig
from deploy.engines.confidence import champion_confidence
from feedback.events import Message
from infra.settings import Places
from tests.deploy.serving_stack import ENGINE_KEY, free_port, process
from training.base_model import resolve_base
from training.chat.template import Template

PROMPT = (Message(role="user", content="hello"),)


def test_it_is_the_mean_log_probability_of_the_answers_tokens(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_NAME, ENGINE_KEY)
    base = resolve_base(str(tiny_base), tmp_path / "cache")
    places = Places(home=tmp_path / "home")
    serving = ServingConfig(dtype="float32", threads=1)
    job = EngineJob(base_path=base.path, base_name=base.version, port=free_port(), serving=serving)
    url = f"http://127.0.0.1:{job.port}"
    assert champion_confidence(places, base, url) is None, "no engine answers yet"
    with process("deploy.engines.embedded", job, tmp_path / "engine.json", f"{url}/health"):
        ask = champion_confidence(places, base, url)
        assert ask is not None
        *scores, refused = ask("default", [(PROMPT, "yes"), (PROMPT, "zq xv kj"), ((), "yes")])
    assert refused is None, "no template renders a conversation without a message"
    assert scores == pytest.approx([expected(base.path, text) for text in ("yes", "zq xv kj")], abs=1e-3)
    assert scores[0] != pytest.approx(scores[1], abs=1e-3)


def expected(path: Path, answer: str) -> float:
    """The same by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokens = Template(tokenizer).answer([{"role": "user", "content": "hello"}], answer)
    with torch.no_grad():
        logits = model(torch.tensor([tokens.ids])).logits[0].log_softmax(-1)
    said = [float(logits[i - 1, tokens.ids[i]]) for i, counts in enumerate(tokens.loss) if counts]
    return sum(said) / len(said)
