"""Score a stage's weights where they were trained, as the reference for train/serve consistency.

Two kinds of stage serve on other weights than they trained on: qlora trains on a base in 4 bits and is served on the
base's own weights, and a stage on top of merged weights is merged into them when it is saved. Either may change what
was learned, so the probe compares the effects (training/stages/probe.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from training.stages.job import StageJob
from training.tuners.tuner import Tuner
from training.weights.logprob_effects import Scores


@dataclass(frozen=True)
class TrainedScores:
    """Log-probabilities of the probe's tokens, by the model in training's own process."""

    version: Scores
    """With what was trained."""
    base: Scores
    """Without it: the base in 4 bits, or the plain one."""
    tolerance: float
    """Largest error of what is served, beside the effect; twice the difference of the bases is allowed on top."""


TOLERANCE = 0.25
"""For both kinds: the tolerance of a bfloat16 engine. Not calibrated on trained adapters yet."""


def score_as_trained(
    model: Any, job: StageJob, tuner: Tuner, texts: Callable[[], Sequence[Sequence[int]]]
) -> TrainedScores | None:
    """Score the probe before the weights are saved; None where what is saved is what was trained.

    Args:
        model: as it was trained, with its adapter.
        texts: the probe's tokens; asked for only where there is something to score.
    """
    from training.weights.files import is_peft
    from training.weights.loading import load_plain, placed

    if not is_peft(model):
        return None
    if tuner.quantised:
        ids = texts()
        with _plain_attention(model):
            version = plain_scores(model, ids)
            with model.disable_adapter():
                return TrainedScores(version=version, base=plain_scores(model, ids), tolerance=TOLERANCE)
    if job.previous is not None and (job.previous.kind == "model" or job.spec.starts_from == "merged"):
        ids = texts()
        with _plain_attention(model):
            version = plain_scores(model, ids)
        base = placed(load_plain(job.base.path, job.dtype))
        return TrainedScores(version=version, base=plain_scores(base, ids), tolerance=TOLERANCE)
    return None


def plain_scores(model: Any, ids: Sequence[Sequence[int]]) -> list[list[float]]:
    """Compute the log-probability (natural) of each token given those before it, by the model's own forward pass."""
    import torch

    scores = []
    with torch.inference_mode():
        for sequence in ids:
            inputs = torch.tensor([list(sequence)], device=model.device)
            # A learned prompt stands before the text: only the text's own positions count.
            logits = model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).logits[0, -len(sequence) :]
            log_p = torch.log_softmax(logits[:-1].float(), -1)
            scores.append(log_p.gather(1, inputs[0, 1:, None])[:, 0].tolist())
    return scores


@contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """In evaluation mode and without the packed layout that training uses."""
    inner = model.get_base_model()
    attention, training = inner.config._attn_implementation, model.training
    model.eval()
    inner.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        inner.set_attn_implementation(attention)
        model.train(training)
