"""`POST /v1/arena` and `/v1/arena/choice`: two blind answers, and which of them a person prefers."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine

from deploy.api_keys import ApiKey
from deploy.engines.protocol import ApiError, ChatRequest
from deploy.experiments.arena import Pair, choose
from deploy.gateway.chat.exchange import Caller, Exchange, new_interaction_id
from deploy.gateway.database.query_executor import QueryExecutor
from deploy.gateway.routing.assign import Assignment, RoutingTable
from feedback.events import pseudonym
from feedback.store.store import Receipt
from infra.errors import NotFound

_dice = random.SystemRandom()


class ArenaChoice(BaseModel):
    """`POST /v1/arena/choice`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    arena_id: str = Field(min_length=1, max_length=64)
    winner: Literal["first", "second", "tie"]
    user: str | None = Field(default=None, max_length=200)


def opponent(table: RoutingTable) -> str:
    """Whom the champion meets: what is under watch, else what is in shadow, else itself, drawn anew."""
    return next((name for name in (table.challenger, table.shadow) if name not in (None, table.champion)), None) or (
        table.champion
    )


async def two_answers(
    asked: ChatRequest,
    caller: Caller,
    *,
    table: RoutingTable,
    champion: str,
    salt: str,
    raw: dict[str, Any],
    answer: Callable[[Exchange], Awaitable[dict[str, Any]]],
    keep: Callable[[Pair], Awaitable[object]],
) -> dict[str, Any]:
    """Both answers in an order drawn by lot, each stored, and the pair stored before it is shown.

    Args:
        champion: who answers users now (an upstream endpoint, in pass-through).
        answer: gives and stores one answer.
        keep: stores the pair.
    """
    if asked.stream:
        raise ApiError(400, "stream is not supported in the arena; leave it out", param="stream")
    versions = [champion, opponent(table.model_copy(update={"champion": champion}))]
    _dice.shuffle(versions)
    exchanges = []
    for version in versions:
        interaction_id = new_interaction_id()
        # In no release's comparison: people who were asked to compare are not its users. Half: the lot of the order.
        dealt = Assignment(version=version, arm="arena", probability=0.5, release_seq=0)
        unit = caller.unit(salt) or interaction_id
        exchanges.append(
            Exchange(
                asked=asked,
                caller=caller,
                table=table,
                interaction_id=interaction_id,
                assignment=dealt,
                unit=unit,
                raw=raw,
            )
        )
    first, second = await asyncio.gather(*(answer(exchange) for exchange in exchanges))
    pair = Pair(
        arena_id=f"arena-{uuid.uuid4().hex}",
        tenant=caller.key.tenant,
        first_id=exchanges[0].interaction_id,
        second_id=exchanges[1].interaction_id,
        first_version=versions[0],
        second_version=versions[1],
    )
    await keep(pair)
    return {
        "arena_id": pair.arena_id,
        "object": "arena.pair",
        "answers": [
            {
                "interaction_id": exchange.interaction_id,
                "content": body["choices"][0]["message"].get("content") or "",
                "finish_reason": body["choices"][0]["finish_reason"],
            }
            for exchange, body in zip(exchanges, (first, second), strict=True)
        ],
    }


async def keep_choice(
    choice: ArenaChoice, *, key: ApiKey, user_header: str | None, salt: str, database: Engine, reach: QueryExecutor
) -> Receipt | None:
    """Store what a person prefers.

    Raises:
        ApiError: 404 for an unknown pair.
    """
    user = user_header or choice.user
    try:
        return await reach.ask(
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
