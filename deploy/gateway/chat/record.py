"""Record an answered exchange as a stored interaction, before the answer ends."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic import JsonValue

from deploy.config import GatewayJob
from deploy.gateway.capture.queue import CaptureQueue
from deploy.gateway.chat.engine_errors import unavailable
from deploy.gateway.chat.exchange import Exchange
from deploy.gateway.telemetry.metrics import Metrics
from feedback.events import Interaction, Message, Routing
from feedback.store.user_salt import pseudonym
from infra.database.errors import OTHER_TABLES, is_of_other_tables


class InteractionRecorder:
    """Makes interactions of exchanges and has them stored."""

    def __init__(self, job: GatewayJob, capture: CaptureQueue, metrics: Metrics, salt: str) -> None:
        self._job, self._capture, self._metrics, self._salt = job, capture, metrics, salt

    def sampling(self, exchange: Exchange) -> dict[str, JsonValue]:
        """Return the sampling settings that count for this exchange, as an engine takes them."""
        request = exchange.request
        limit = request.max_completion_tokens or request.max_tokens or self._job.serving.max_tokens
        stop: list[JsonValue] = [*request.stops]
        named: dict[str, JsonValue] = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "stop": stop or None,
        }
        return {"max_tokens": limit, **{name: value for name, value in named.items() if value is not None}}

    async def record(
        self,
        exchange: Exchange,
        text: str,
        reason: str,
        counts: tuple[int, int],
        *,
        messages: Sequence[Message] | None = None,
    ) -> None:
        """Return when the interaction is durable.

        Args:
            counts: tokens of prompt and answer.
            messages: the prompt, where it is not the plain text of the request's own.

        Raises:
            ApiError: 503, it could not be stored, so it must not be given.
        """
        caller, assignment = exchange.caller, exchange.assignment
        prompt = messages or [Message.model_validate(message.plain) for message in exchange.request.messages]
        interaction = Interaction(
            interaction_id=exchange.interaction_id,
            tenant=caller.key.tenant,
            user=pseudonym(caller.user, self._salt) if caller.user else None,
            session=caller.session,
            version=assignment.version,
            messages=tuple(prompt),
            answer=text,
            created_at=exchange.created_at,
            latency_ms=(time.monotonic() - exchange.started) * 1000,
            sampling=self.sampling(exchange),
            prompt_tokens=counts[0],
            completion_tokens=counts[1],
            task=caller.task,
            routing=Routing(
                release_seq=assignment.release_seq,
                arm=assignment.arm,
                unit=exchange.unit,
                probability=assignment.probability,
            ),
            finish_reason=reason,
        )
        try:
            await self._capture.keep(interaction)
        except Exception as error:
            why = OTHER_TABLES if is_of_other_tables(error) else "try again"
            raise unavailable(f"the answer could not be stored, so it is not given; {why}") from error
        self._metrics.answers.labels(caller.key.tenant, assignment.version, assignment.arm).inc()
        self._metrics.tokens.labels("prompt").inc(counts[0])
        self._metrics.tokens.labels("answer").inc(counts[1])
