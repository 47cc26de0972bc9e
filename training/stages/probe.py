"""Take the probe: log-probabilities on fixed prompts that prove, wherever a version is served, that it is this one.

They are taken from the files just saved, by the generator that serves, in serving numerics: so a version that does not
load, or loads as something else, is found before anything is published. An engine is then asked for the same numbers.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from infra.artifact import atomic_write
from infra.errors import CorruptArtifact, UserError
from infra.stored_model import Stored
from training.chat.rendering import render
from training.hardware import Dtype
from training.stages.result import Kind
from training.stages.trained_scores import TrainedScores, plain_scores
from training.weights.logprob_effects import NEGLIGIBLE, compare
from training.weights.probe_prompts import CONVERSATIONS

PROBE = "probe.json"


class ProbePrompt(Stored):
    """One fixed sequence of n tokens with its n - 1 log-probabilities, of each token given those before it."""

    ids: tuple[int, ...]
    """The tokens."""
    version: tuple[float, ...]
    """Under this version."""
    base: tuple[float, ...]
    """Under the untouched base."""


class Probe(Stored):
    """What `probe.json` holds."""

    dtype: Dtype
    """Numerics in which they were taken."""
    servable: bool = True
    """Whether the embedded engine's own code path could be used; if not, peft's forward pass was."""
    prompts: tuple[ProbePrompt, ...]
    """The probes."""
    refused: str = ""
    """Why what would be served is not what was trained; empty where it is. The gate rejects on it."""

    @property
    def effect(self) -> float:
        """Root mean square difference from the base, in nats a token."""
        differences = [v - b for p in self.prompts for v, b in zip(p.version, p.base, strict=True)]
        return math.sqrt(sum(d * d for d in differences) / len(differences))


def read_probe(folder: Path) -> Probe:
    """Read the probe beside a version.

    Raises:
        CorruptArtifact: there is none, or it cannot be read.
    """
    try:
        return Probe.model_validate_json((folder / PROBE).read_bytes())
    except (OSError, ValueError) as error:
        raise CorruptArtifact(f"{folder / PROBE} cannot be read ({error}); train or copy the version again") from error


def probe_conversations() -> list[list[dict[str, str]]]:
    """Make the probes' texts as conversations."""
    return [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in CONVERSATIONS
    ]


def probe_ids(base: Path) -> list[tuple[int, ...]]:
    """Tokenise the probes by a base model's own template, as `take_probe` has them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    texts = [render(tokenizer, turns, prompt=False) for turns in probe_conversations()]
    return [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]


def take_probe(
    base: Path,
    weights: Path,
    kind: Kind,
    dtype: Dtype,
    out: Path,
    *,
    as_trained: TrainedScores | None = None,
) -> Probe:
    """Load what was saved in `weights` onto `base`, score the probes and write `probe.json` into `out`.

    Args:
        as_trained: what training's own process scored, where that is not what is served: a difference is written down
            as the reason to refuse it.

    Raises:
        CorruptArtifact: what was saved does not load.
    """
    from training.generation.generator import Generator

    generator = Generator(base, dtype=dtype)
    ids = [generator.encode_chat(turns, add_generation_prompt=False) for turns in probe_conversations()]
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
        refused=_refusal(trained, plain, as_trained),
    )
    atomic_write(out / PROBE, json.dumps(probe.model_dump(mode="json")) + "\n")
    return probe


def _refusal(version: list[list[float]], base: list[list[float]], there: TrainedScores | None) -> str:
    if there is None:
        return ""
    effects = compare(version=version, base=base, wanted_version=there.version, wanted_base=there.base)
    if effects.same(there.tolerance) or effects.error < NEGLIGIBLE:
        return ""
    return (
        f"what would be served is not what was trained: {effects} (allowed {there.tolerance:g} of the effect "
        "and twice the base's difference)"
    )


def _through_peft(base: Path, weights: Path, dtype: str, ids: list[tuple[int, ...]]) -> list[list[float]]:
    from training.weights.loading import load_adapter, load_plain

    return plain_scores(load_adapter(load_plain(base, dtype), weights, False), ids)
