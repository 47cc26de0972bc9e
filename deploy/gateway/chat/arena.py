"""Give two blind answers to one request, and keep which of them a person prefers."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Awaitable, Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine

from deploy.api_keys import ApiKey
from deploy.engines.protocol import ApiError, ChatRequest
from deploy.experiments.arena import Pair, choose
from deploy.gateway.chat.backend import Backend
from deploy.gateway.chat.exchange import Caller, Exchange, new_interaction_id
from deploy.gateway.database.query_executor import QueryExecutor
from deploy.gateway.routing.assign import Assignment, RoutingTable
from feedback.store.store import Receipt
from feedback.store.user_salt import pseudonym
from infra.errors import NotFound

_dice = random.SystemRandom()


class ArenaChoice(BaseModel):
    """`POST /v1/arena/choice`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    arena_id: str = Field(min_length=1, max_length=64)
    winner: Literal["first", "second", "tie"]
    user: str | None = Field(default=None, max_length=200)


class ArenaAnswer(BaseModel):
    """One of the two answers; who gave it is not said."""

    interaction_id: str
    content: str
    finish_reason: str | None


class ArenaPair(BaseModel):
    """`POST /v1/arena`, answered: both answers, in the order in which they are shown."""

    arena_id: str
    object: Literal["arena.pair"] = "arena.pair"
    answers: tuple[ArenaAnswer, ...] = Field(min_length=2, max_length=2)


def opponent(table: RoutingTable) -> str:
    """Return whom the champion meets: what is under watch, else what is in shadow, else itself, drawn anew."""
    return next((name for name in (table.challenger, table.shadow) if name not in (None, table.champion)), None) or (
        table.champion
    )


async def two_answers(
    request: ChatRequest,
    caller: Caller,
    body: bytes,
    *,
    backend: Backend,
    table: RoutingTable,
    salt: str,
    keep: Callable[[Pair], Awaitable[object]],
) -> ArenaPair:
    """Give both answers in an order drawn by lot, each stored, and the pair stored before it is shown.

    Args:
        body: the request as it came.
        backend: gives and stores each answer.
        keep: stores the pair.
    """
    if request.stream:
        raise ApiError(400, "stream is not supported in the arena; leave it out", param="stream")
    champion = backend.champion(caller.key.tenant)
    versions = [champion, opponent(table.model_copy(update={"champion": champion}))]
    _dice.shuffle(versions)
    exchanges = []
    for version in versions:
        interaction_id = new_interaction_id()
        # In no release's comparison: people who were asked to compare are not its users. Half: the lot of the order.
        assignment = Assignment(version=version, arm="arena", probability=0.5, release_seq=0)
        unit = caller.unit(salt) or interaction_id
        exchanges.append(
            Exchange(
                request=request,
                caller=caller,
                table=table,
                interaction_id=interaction_id,
                assignment=assignment,
                unit=unit,
                raw=json.loads(body),
            )
        )
    first, second = await asyncio.gather(*(backend.answer(exchange) for exchange in exchanges))
    pair = Pair(
        arena_id=f"arena-{uuid.uuid4().hex}",
        tenant=caller.key.tenant,
        first_id=exchanges[0].interaction_id,
        second_id=exchanges[1].interaction_id,
        first_version=versions[0],
        second_version=versions[1],
    )
    await keep(pair)
    return ArenaPair(
        arena_id=pair.arena_id,
        answers=tuple(
            ArenaAnswer(
                interaction_id=exchange.interaction_id,
                content=answer["choices"][0]["message"].get("content") or "",
                finish_reason=answer["choices"][0]["finish_reason"],
            )
            for exchange, answer in zip(exchanges, (first, second), strict=True)
        ),
    )


async def keep_choice(
    choice: ArenaChoice, *, key: ApiKey, user_header: str | None, salt: str, database: Engine, queries: QueryExecutor
) -> Receipt | None:
    """Store what a person prefers.

    Raises:
        ApiError: 404 for an unknown pair.
    """
    user = user_header or choice.user
    try:
        return await queries.run(
            choose,
            database,
            key.tenant,
            choice.arena_id,
            choice.winner,
            actor=pseudonym(user, salt) if user else f"key-{key.key_id}",
            trusted="trusted" in key.scopes,
        )
    except NotFound as error:
        raise ApiError(404, str(error), code="arena_not_found", param="arena_id") from error
