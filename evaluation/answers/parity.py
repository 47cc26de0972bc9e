"""Prove that the weights loaded here are the weights that were trained, by the probe written beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.answers.entries import ParityEntry

if TYPE_CHECKING:
    from training.generation.generator import Generator


def check_parity(generator: Generator, adapter: str, probe: Path, tolerance: float) -> ParityEntry:
    """Compare the probe's recorded log-probabilities with those of the attached version.

    Only the adapter's effect is compared, ||(here - base here) - (trained - base then)|| / ||trained - base then||:
    what numerics do to base and version alike cancels out. No effect at all fails too: then nothing is proved.

    Args:
        adapter: name under which the version is attached.
        probe: its probe.json; where there is none the state is `missing`.
    """
    from training.stages.probe import read_probe
    from training.weights.logprob_effects import compare

    if not probe.exists():
        return ParityEntry(state="missing", error=None)
    prompts = read_probe(probe.parent).prompts
    ids = [prompt.ids for prompt in prompts]
    here, base = generator.logprobs(adapter, ids), generator.logprobs(None, ids)
    effects = compare(
        version=here,
        base=base,
        wanted_version=[prompt.version for prompt in prompts],
        wanted_base=[prompt.base for prompt in prompts],
    )
    if effects.effect == 0.0:
        return ParityEntry(state="failed", error=None)
    error = round(effects.relative_error, 4)
    return ParityEntry(state="passed" if error <= tolerance else "failed", error=error)
