"""Prove that what an engine serves under a version's name is that version.

Engines have been seen to answer with the wrong adapter, a stale one, or the bare base, without a word. So after a load
the engine scores the probe's fixed tokens, through the adapter and through the base, and both are compared with what
training recorded in serving numerics (effect, error and noise are those of training/weights/logprob_effects.py):

    refuse if noise > base tolerance              another base, or another revision of it
    refuse if there is no effect                  the adapter changes nothing
    refuse if error > tolerance * effect + 2 noise, or the effects point elsewhere (cosine < 0.7)

The noise term is what the engine's rounding alone does to the base, so a weak but right adapter passes in bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from deploy.engines.dialect import Dialect
from deploy.ledger.evidence import Proof, Prove
from deploy.versions.versions import load_version
from infra.errors import NotFound, RatchetError
from training.base_model import base_version as name_of_base
from training.stages.probe import Probe, read_probe
from training.weights.logprob_effects import compare, distance


class ParityError(RatchetError):
    """What the engine serves is not the version; the message holds the numbers."""


class Scores(Protocol):
    """The part of an engine client that is needed here."""

    dialect: Dialect

    def load(self, name: str, path: Path) -> None: ...

    def prompt_logprobs(self, model: str, ids: Sequence[int]) -> list[float]: ...


def check_parity(
    client: Scores, version: str, probe: Probe, *, base_name: str, tolerance: float | None = None
) -> Proof:
    """Compare the engine with the record.

    Args:
        client: the engine; `version` and the base are loaded there.
        base_name: what the engine calls the base.
        tolerance: relative error allowed; default by engine and dtype.

    Raises:
        ParityError: it is not the version.
    """
    tolerances = client.dialect.tolerances(probe.dtype)
    allowed, base_allowed = tolerance or tolerances.effect, tolerances.base
    ids = [prompt.ids for prompt in probe.prompts]
    effects = compare(
        version=[client.prompt_logprobs(version, each) for each in ids],
        base=[client.prompt_logprobs(base_name, each) for each in ids],
        wanted_version=[prompt.version for prompt in probe.prompts],
        wanted_base=[prompt.base for prompt in probe.prompts],
    )
    numbers = f"{effects} (allowed {allowed:.3g} and {base_allowed:.3g}), recorded in {probe.dtype}"
    if not effects.finite:
        raise ParityError(f"the engine gives values that are not finite for {version}: {numbers}")
    if effects.noise > base_allowed:
        raise ParityError(f"the engine's base is not the one that {version} was trained on: {numbers}")
    if effects.effect < 1e-6:
        raise ParityError(f"{version} does not differ from the base at all, there is nothing to serve: {numbers}")
    if not effects.same(allowed):
        raise ParityError(f"what the engine serves as {version} is not that version: {numbers}")
    return Proof(
        version=version,
        tokens=effects.tokens,
        effect=effects.effect,
        relative_error=effects.relative_error,
        cosine=effects.cosine,
        base_error=effects.noise,
    )


def check_base(client: Scores, name: str, base_version: str, versions_dir: Path) -> Proof:
    """Prove that an engine's base is the one that versions were trained on: every probe holds the base's scores too.

    Where nothing was published yet there is no record to hold it against, and nothing to take back either: that it
    answers must do, and the result says so.

    Args:
        name: what the engine calls the base.

    Raises:
        ParityError: it is another model, or another revision.
    """
    probe = _a_probe_of(base_version, versions_dir)
    if probe is None:
        client.prompt_logprobs(name, (1, 2))
        return Proof(version=base_version, base=True, proved=False)
    allowed = client.dialect.tolerances(probe.dtype).base
    measured = [client.prompt_logprobs(name, prompt.ids) for prompt in probe.prompts]
    error = distance(measured, [prompt.base for prompt in probe.prompts])
    if not error <= allowed:  # a value that is not finite is refused too
        raise ParityError(
            f"the engine's base is not {base_version}: its log-probabilities differ by {error:.4g} nats a token "
            f"(allowed {allowed:.3g}) from those recorded in {probe.dtype}; start the engine with that base"
        )
    return Proof(version=base_version, base=True, proved=True, base_error=error)


def _a_probe_of(base_version: str, versions_dir: Path) -> Probe | None:
    """The probe of some published version that was trained on this base."""
    for folder in sorted(versions_dir.glob("v*")):
        try:
            file = load_version(versions_dir, folder.name, check=False)
            if name_of_base(str(file.record.parents.get("base", ""))) == base_version and file.probe is not None:
                return read_probe(folder)
        except RatchetError:
            continue  # a broken version says nothing of the base
    return None


def prover(
    client: Scores,
    versions_dir: Path,
    *,
    base_version: str,
    base_name: str | None = None,
    tolerance: float | None = None,
) -> Prove:
    """Make the check that releases and rollbacks call: load a version into the engine and prove its parity."""

    def prove(version: str) -> Proof:
        if version == base_version:
            return check_base(client, base_name or base_version, base_version, versions_dir)
        file = load_version(versions_dir, version)
        if file.probe is None:
            raise NotFound(
                f"{file.folder} has no probe.json, so what an engine serves cannot be proved; train it again"
            )
        probe = read_probe(file.folder)
        if probe.refused:
            raise ParityError(f"{version} is not served: {probe.refused}")
        # What was converted is held to the same probe, so a wrong conversion is found here.
        converted = file.plain is not None and client.dialect.refuses(file.path) is not None
        client.load(version, file.plain if converted and file.plain is not None else file.path)
        return check_parity(client, version, probe, base_name=base_name or base_version, tolerance=tolerance)

    return prove
