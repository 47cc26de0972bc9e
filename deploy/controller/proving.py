"""Load and prove versions in the serving engines, and ask them for answers, for releases, rollbacks and judges."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from deploy.config import ENGINE_KEY
from deploy.controller.job import ControllerJob
from deploy.controller.rollback_review import Answer
from deploy.engines import SERVING_ENGINES
from deploy.engines.client import EngineClient
from deploy.ledger.evidence import Proof, Prove
from infra.errors import Unavailable

log = logging.getLogger(__name__)


def make_prover(job: ControllerJob, *, timeout: float = 120.0) -> Prove:
    """Make the function that loads and proves versions in the engines; without one, it refuses all.

    Args:
        timeout: seconds that one call of the engine may take before it counts as one that does not answer.
    """
    if job.engine_url is None:

        def refuse(version: str) -> Proof:
            raise Unavailable(f"no engine is configured to prove {version} in; set engine_url")

        return refuse
    from deploy.versions.parity import prover

    dialect, key = SERVING_ENGINES.named(job.engine), os.environ.get(ENGINE_KEY, "")
    provers = [
        prover(
            EngineClient(url, key, dialect=dialect, timeout=timeout),
            job.versions_dir,
            base_version=job.base_version,
            base_name=job.engine_base_name,
            tolerance=job.parity_tolerance,
        )
        for url in (job.engine_url, *job.replicas)
    ]

    return prove_everywhere(provers)


def prove_everywhere(provers: Sequence[Prove]) -> Prove:
    """Prove a version in every engine that answers; one engine's refusal is everybody's.

    An engine that does not answer keeps no release from the others: a gateway proves a version in each engine by itself
    before it sends that one a request, so the engine is proved when it is back. At least one must answer.
    """

    def prove(version: str) -> Proof:
        measured: list[Proof] = []
        away: list[Unavailable] = []
        for prove_in in provers:
            try:
                measured.append(prove_in(version))
            except Unavailable as error:
                log.warning("%s is not proved in one engine: %s", version, error)
                away.append(error)
        if not measured:
            raise away[0]
        counts = {"engines": len(measured), **({"engines_away": len(away)} if away else {})}
        return measured[0].model_copy(update=counts)

    return prove


def make_answer(job: ControllerJob, prove: Prove) -> Answer:
    """Make the function that asks the engine for a version's answer, for the blind judge; it proves each once."""
    assert job.engine_url is not None, "no engine to ask"
    client = EngineClient(job.engine_url, os.environ.get(ENGINE_KEY, ""), dialect=SERVING_ENGINES.named(job.engine))

    proved: set[str] = set()

    def answer(version: str, messages: Sequence[Mapping[str, str]], sampling: Mapping[str, Any]) -> str:
        if version not in proved:
            prove(version)
            proved.add(version)
        name = (job.engine_base_name or version) if version == job.base_version else version
        body = {**sampling, "model": name, "messages": list(messages)}
        return client.chat(body).text

    return answer
