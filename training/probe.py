"""The probe: log-probabilities on fixed prompts that prove, wherever a version is served, that it is this one.

They are taken from the files just saved, by the generator that serves, in serving numerics: so a version that does not
load, or loads as something else, is found before anything is published. An engine is then asked for the same numbers.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

from infra.artifact import atomic_write
from infra.errors import CorruptArtifact, UserError
from infra.settings import Config

PROBE = "probe.json"

CONVERSATIONS: tuple[tuple[str, str], ...] = (
    ("Hello! Who are you?", "I am an assistant. How can I help you today?"),
    ("My parcel has not arrived and I want my money back.", "I am sorry to hear that. Let me look into your order."),
    ("Answer with a JSON object with the fields name and age: Ada is 36.", '{"name": "Ada", "age": 36}'),
    ("Translate to French: good morning", "Bonjour"),
    ("What is 17 + 25?", "17 + 25 = 42"),
    ("Summarise in one sentence: the meeting was moved to Friday.", "The meeting is now on Friday."),
)


class ProbePrompt(Config):
    """One fixed sequence of n tokens with its n - 1 log-probabilities, of each token given those before it."""

    ids: tuple[int, ...]
    """The tokens."""
    version: tuple[float, ...]
    """Under this version."""
    base: tuple[float, ...]
    """Under the untouched base."""


class Probe(Config):
    """What `probe.json` holds."""

    dtype: Literal["float32", "bfloat16"]
    """Numerics in which they were taken."""
    servable: bool = True
    """Whether the embedded engine's own code path could be used; if not, peft's forward pass was."""
    prompts: tuple[ProbePrompt, ...]
    """The probes."""

    @property
    def effect(self) -> float:
        """Root mean square difference from the base, in nats a token."""
        differences = [v - b for p in self.prompts for v, b in zip(p.version, p.base, strict=True)]
        return math.sqrt(sum(d * d for d in differences) / len(differences))


def read_probe(folder: Path) -> Probe:
    """The probe beside a version.

    Raises:
        CorruptArtifact: there is none, or it cannot be read.
    """
    try:
        return Probe.model_validate_json((folder / PROBE).read_bytes())
    except (OSError, ValueError) as error:
        raise CorruptArtifact(f"{folder / PROBE} cannot be read ({error}); train or copy the version again") from error


def take_probe(
    base: Path, weights: Path, kind: Literal["adapter", "model"], dtype: Literal["float32", "bfloat16"], out: Path
) -> Probe:
    """Load what was saved in `weights` onto `base`, score the probes and write `probe.json` into `out`.

    Raises:
        CorruptArtifact: what was saved does not load.
    """
    from training.generation import Generator

    generator = Generator(base, dtype=dtype)
    ids = [
        generator.encode_chat(
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            add_generation_prompt=False,
        )
        for question, answer in CONVERSATIONS
    ]
    plain = generator.logprobs(None, ids)
    servable = True
    try:
        if kind == "adapter":
            generator.attach("probe", weights)
        else:
            generator.attach_model("probe", weights)
        trained = generator.logprobs("probe", ids)
    except UserError:
        servable, trained = False, _through_peft(base, weights, dtype, ids)
    probe = Probe(
        dtype=dtype,
        servable=servable,
        prompts=tuple(
            ProbePrompt(ids=tuple(i), version=tuple(v), base=tuple(b))
            for i, v, b in zip(ids, trained, plain, strict=True)
        ),
    )
    atomic_write(out / PROBE, json.dumps(probe.model_dump(mode="json")) + "\n")
    return probe


def _through_peft(base: Path, weights: Path, dtype: str, ids: list[tuple[int, ...]]) -> list[list[float]]:
    import torch

    from training.loading import load_adapter, load_plain

    model: Any = load_adapter(load_plain(base, dtype), weights, False)
    scores = []
    with torch.inference_mode():
        for sequence in ids:
            inputs = torch.tensor([sequence], device=model.device)
            logits = model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).logits[0, -len(sequence) :]
            log_p = torch.log_softmax(logits[:-1].float(), -1)
            scores.append(log_p.gather(1, inputs[0, 1:, None])[:, 0].tolist())
    return scores
