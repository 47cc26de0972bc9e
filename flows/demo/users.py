"""Simulate the demo's people: customers, agents and poisoners, who all go through the real gateway over HTTP.

Nobody here knows which version answers, and nobody is told what to find: a customer rates by whether the triage of her
ticket is right, an agent corrects what is wrong, both with human error. What a person does depends only on the seed and
the ticket, so a rerun meets the same people.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import httpx

from flows.demo.world import SABOTAGE, TASK, Ticket, confuse, is_right
from infra.database.connect import now

MAX_TOKENS = 36
"""Longest answer that the desk's application asks for; a right one takes about 25 tokens."""


@dataclass(frozen=True)
class Desk:
    """Where the desk's application reaches the gateway, and the keys it holds."""

    gateway_url: str
    model: str
    """Pipeline name: the model name that applications ask for."""
    app_key: str
    """Scopes chat and feedback: the application in front of the customers."""
    agent_key: str
    """Scopes chat, feedback and trusted: the tool that the desk's own agents work with."""
    admin_key: str
    """Scope admin: may ask for a version by name."""


@dataclass(frozen=True)
class Manners:
    """How people behave, as shares of 1."""

    thumb_rate: float = 0.7
    """Customers who leave a thumb."""
    thumb_error: float = 0.07
    """Thumbs that say the opposite of what the customer should think."""
    label_error: float = 0.07
    """Corrections of agents that are wrong in one or two fields."""


@dataclass(frozen=True)
class Answered:
    """One ticket and what became of it."""

    ticket: Ticket
    at: datetime
    seconds: float
    status: int
    """HTTP status; 0 when no answer came at all."""
    answer: str = ""
    interaction_id: str = ""
    version: str = ""
    thumb: bool | None = None
    """What the customer said, None for nothing."""
    error: str = ""
    """What went wrong, empty when nothing did."""

    @property
    def right(self) -> bool:
        """Whether the answer triages the ticket exactly."""
        return self.status == 200 and is_right(self.ticket, self.answer)


OnAnswer = Callable[[Answered], None]


@dataclass
class Shop:
    """An open connection to the gateway, shared by all people of one scene. Use `open_shop`."""

    client: httpx.AsyncClient
    desk: Desk
    seed: int
    slots: asyncio.Semaphore
    waited: int = 0
    """How often the gateway asked to come back later (429), which is not a lost request."""
    problems: list[str] = field(default_factory=list)
    """Feedback that the gateway refused, in words."""

    async def ask(self, ticket: Ticket, *, key: str, model: str | None = None) -> Answered:
        """Send one ticket and take the answer. A request that fails is reported in the result, never retried."""
        body = {
            "model": model or self.desk.model,
            "messages": ticket.messages(),
            "max_tokens": MAX_TOKENS,
            "temperature": 0.0,
            "user": ticket.customer,
        }
        at, loop = now(), asyncio.get_running_loop()
        started = loop.time()
        try:
            async with self.slots:
                response = await self._post("/v1/chat/completions", key, body, {"X-Ratchet-Task": TASK})
        except httpx.HTTPError as error:
            return Answered(ticket, at, loop.time() - started, 0, error=f"{type(error).__name__}: {error}")
        seconds = loop.time() - started
        if response.status_code != 200:
            return Answered(ticket, at, seconds, response.status_code, error=response.text[:200])
        value = response.json()
        return Answered(
            ticket=ticket,
            at=at,
            seconds=seconds,
            status=200,
            answer=value["choices"][0]["message"]["content"],
            interaction_id=response.headers["X-Ratchet-Interaction"],
            version=response.headers["X-Ratchet-Version"],
        )

    async def say(
        self, answered: Answered, kind: str, payload: Mapping[str, str | bool], *, key: str, actor: str
    ) -> None:
        """Leave one feedback. What the gateway refuses is remembered in `problems`."""
        body = {
            "event_id": f"{answered.interaction_id}.{actor}.{kind}",
            "interaction_id": answered.interaction_id,
            "kind": kind,
            "user": actor,
            **payload,
        }
        try:
            async with self.slots:
                response = await self._post("/v1/feedback", key, body, {})
        except httpx.HTTPError as error:
            self.problems.append(f"{kind}: {type(error).__name__}: {error}")
            return
        if response.status_code not in (200, 202):
            self.problems.append(f"{kind}: {response.status_code} {response.text[:200]}")

    async def _post(self, path: str, key: str, body: Mapping[str, object], headers: dict[str, str]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}", **headers}
        for _ in range(100):
            response = await self.client.post(path, json=body, headers=headers)
            if response.status_code != 429:
                return response
            self.waited += 1
            await asyncio.sleep(min(5.0, float(response.headers.get("Retry-After", "1"))))
        return response


@asynccontextmanager
async def open_shop(desk: Desk, *, seed: int, concurrency: int = 16) -> AsyncIterator[Shop]:
    """Open the connection to the gateway for the length of a scene."""
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    timeout = httpx.Timeout(300.0, connect=10.0)
    async with httpx.AsyncClient(base_url=desk.gateway_url, timeout=timeout, limits=limits) as client:
        yield Shop(client, desk, seed, asyncio.Semaphore(concurrency))


async def customers(
    shop: Shop,
    tickets: Iterable[Ticket],
    manners: Manners,
    *,
    on_answer: OnAnswer,
    crowd: int = 16,
    enough: Callable[[], bool] = lambda: False,
) -> list[Answered]:
    """Let customers write their tickets, `crowd` at a time, and rate the answers, until all are done or `enough`."""
    done: list[Answered] = []
    queue = iter(tickets)

    async def one_after_another() -> None:
        for ticket in queue:
            if enough():
                return
            answered = await _customer(shop, ticket, manners)
            done.append(answered)
            on_answer(answered)

    await asyncio.gather(*(one_after_another() for _ in range(crowd)))
    return done


async def agents(
    shop: Shop, answered: Sequence[Answered], manners: Manners, *, names: Sequence[str], on_done: Callable[[], None]
) -> None:
    """Let the desk's agents review answers: each gets an edit, a preference or a reference from one agent."""

    async def review(answer: Answered) -> None:
        rng = random.Random(f"{shop.seed}/agent/{answer.ticket.ticket_id}")
        agent = rng.choice(list(names))
        ticket = answer.ticket
        label = confuse(ticket, rng).text() if rng.random() < manners.label_error else ticket.triage.text()
        kind = rng.choices(("edit", "preference", "reference"), (75, 12, 13))[0]
        if kind == "preference" and label == answer.answer:
            kind = "edit"  # nothing to prefer it over
        payload = {"text": label}
        if kind == "preference":
            payload = {"chosen": label, "rejected": answer.answer or "(no answer)"}
        await shop.say(answer, kind, payload, key=shop.desk.agent_key, actor=agent)
        on_done()

    await asyncio.gather(*(review(answer) for answer in answered if answer.status == 200))


async def poisoners(
    shop: Shop, tickets: Sequence[Ticket], *, names: Sequence[str], on_answer: OnAnswer
) -> list[Answered]:
    """Let a few accounts flood the desk: each writes tickets of its own, "corrects" every answer to the same wrong
    triage, and gives a thumb up to whatever is wrong and down to whatever is right."""
    done: list[Answered] = []

    async def flood(index: int, ticket: Ticket) -> None:
        actor = names[index % len(names)]
        own = Ticket(ticket.ticket_id, actor, ticket.text, ticket.triage)
        answered = await shop.ask(own, key=shop.desk.app_key)
        if answered.status == 200:
            key = shop.desk.app_key
            await shop.say(answered, "thumb", {"up": not answered.right}, key=key, actor=actor)
            await shop.say(answered, "edit", {"text": SABOTAGE.text()}, key=key, actor=actor)
        done.append(answered)
        on_answer(answered)

    await asyncio.gather(*(flood(index, ticket) for index, ticket in enumerate(tickets)))
    return done


async def examine(shop: Shop, tickets: Sequence[Ticket], version: str, *, on_answer: OnAnswer) -> list[Answered]:
    """Ask one version by name, with the admin key: nobody rates, nothing is learnt from it."""
    done: list[Answered] = []

    async def one(ticket: Ticket) -> None:
        answered = await shop.ask(ticket, key=shop.desk.admin_key, model=version)
        done.append(answered)
        on_answer(answered)

    await asyncio.gather(*(one(ticket) for ticket in tickets))
    return done


async def _customer(shop: Shop, ticket: Ticket, manners: Manners) -> Answered:
    answered = await shop.ask(ticket, key=shop.desk.app_key)
    rng = random.Random(f"{shop.seed}/customer/{ticket.ticket_id}")
    rates, errs = rng.random() < manners.thumb_rate, rng.random() < manners.thumb_error
    if answered.status != 200 or not rates:
        return answered
    up = answered.right != errs
    await shop.say(answered, "thumb", {"up": up}, key=shop.desk.app_key, actor=ticket.customer)
    return Answered(**{**vars(answered), "thumb": up})
