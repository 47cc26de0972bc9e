"""Score how confident the champion is in answers, by its serving engine, for the abuse check of accounts."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from deploy.config import ENGINE_KEY
from deploy.engines.client import EngineClient
from deploy.engines.dialect import EMBEDDED, Dialect
from deploy.ledger.ledger import current
from feedback.abuse.confidence import Confidence
from feedback.events import Message
from infra.database.open import open_database
from infra.errors import RatchetError
from infra.settings import Places
from training.base_model import Base

log = logging.getLogger(__name__)

MAX_TOKENS = 1_024
"""Longest prompt with answer that is scored; longer ones are cut at their beginning."""


def champion_confidence(places: Places, base: Base, url: str, dialect: Dialect = EMBEDDED) -> Confidence | None:
    """Make the function that scores answers by the champion's mean log-probability per token.

    None, with a warning in the log, while no engine answers. Nothing is loaded until the check asks: on most nights it
    never does.
    """
    key = os.environ.get(ENGINE_KEY, "")
    with EngineClient(url, key, dialect=dialect, timeout=10) as client:
        if not client.healthy():
            log.warning(
                "no engine answers at %s: accounts are judged without the champion's confidence in their labels",
                url,
            )
            return None

    def mean_logprobs(tenant: str, rows: Sequence[tuple[Sequence[Message], str]]) -> list[float | None]:
        from transformers import AutoTokenizer

        from training.chat.template import Template, Unlearnable, messages_for_template

        template = Template(AutoTokenizer.from_pretrained(base.path, local_files_only=True))
        model = current(open_database(places), tenant).champion or base.version
        log.info("asking %s how sure it is of %s labels", model, len(rows))
        means: list[float | None] = []
        with EngineClient(url, key, dialect=dialect) as engine:
            for messages, answer in rows:
                try:
                    tokens = template.answer(messages_for_template(messages), answer)
                except Unlearnable:  # the model's template refuses the conversation: nothing can be said of it
                    means.append(None)
                    continue
                ids, loss = tokens.ids[-MAX_TOKENS:], tokens.loss[-MAX_TOKENS:]
                try:
                    scores = engine.prompt_logprobs(model, ids)
                except RatchetError as error:
                    raise RatchetError(f"the engine cannot score a label for the abuse check: {error}") from error
                counted = [score for score, counts in zip(scores, loss[1:], strict=True) if counts]
                means.append(sum(counted) / len(counted) if counted else 0.0)
        return means

    return mean_logprobs
