"""MLflow's registry follows the ledger: a model version for each of ours, and aliases champion, challenger, previous.

MLflow has no compare-and-set and may be down, so it is never asked what is live. What Ratchet last wrote to each alias
is kept in SQL (with the value it is about to write): an alias that holds neither was moved by hand.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Engine, Integer, String, Table, delete, insert, select

from deploy.ledger.ledger import Entry, history
from deploy.ledger.state import Standing
from deploy.versions.versions import VersionFile
from infra.database.connect import UtcDateTime, begin_write, metadata, now
from infra.errors import Unavailable
from infra.settings import Config
from infra.telemetry.mlflow_operations import find_model
from infra.telemetry.mlflow_refusals import Refused, deleted_experiment, did_not_answer, of_everything, one_line

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
# What `pending` holds while an alias is being taken away; NULL means that nothing is pending.
_TAKEN_AWAY = ""
EXPERIMENT = "ratchet-versions"
"""Experiment whose logged models hold the versions."""
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
VERSION_TAG, SEQ_TAG, STATE_TAG = "ratchet.version", "ratchet.seq", "ratchet.state"

written_aliases = Table(
    "registry_aliases",
    metadata,
    Column("tenant", String(200), primary_key=True),
    Column("alias", String(60), primary_key=True),
    Column("value", String(200)),
    Column("pending", String(200)),
    Column("seq", Integer, nullable=False),
    Column("written_at", UtcDateTime, nullable=False),
)


class HandMove(Config):
    """An alias that somebody else moved."""

    alias: str
    """champion, challenger or previous."""
    found: str | None
    """MLflow's version number that it holds now; None: it was deleted."""
    version: str | None
    """Our version's name behind that number; None: not one of ours."""
    tags: Mapping[str, str] = {}
    """That model version's tags, where a person may have named an override."""
    last_written: str | None
    """The number that Ratchet wrote last."""


class Registry:
    """One registered model of an MLflow server."""

    def __init__(self, url: str, model: str, *, experiment: str = EXPERIMENT) -> None:
        # Without these a server that is down would hold the caller for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("DO_NOT_TRACK", "true")
        from mlflow import MlflowClient

        self.client: Any = MlflowClient(tracking_uri=url, registry_uri=url)
        self.url, self.model, self.experiment = url, model, experiment

    def aliases(self) -> dict[str, str]:
        """Alias -> MLflow's version number.

        Raises:
            Unavailable: MLflow did not answer.
        """
        found = self._ask(lambda: self._model())
        return {alias: str(number) for alias, number in dict(found.aliases).items()} if found else {}

    def number_of(self, version: str) -> str | None:
        """MLflow's number for our version; None while it is not registered."""
        found = self.registered().get(version)
        return found[0] if found else None

    def registered(self) -> dict[str, tuple[str, dict[str, str]]]:
        """Our version -> MLflow's number for it and its tags there, of all that are registered.

        Raises:
            Unavailable: MLflow did not answer.
        """
        found: dict[str, tuple[str, dict[str, str]]] = {}
        for entry in self._ask(lambda: self._numbered()):
            if version := entry.tags.get(VERSION_TAG):
                found.setdefault(version, (str(entry.version), dict(entry.tags)))
        return found

    def version_of(self, number: str) -> tuple[str | None, dict[str, str]]:
        """Our version's name behind MLflow's number, and that model version's tags."""
        entry = self._ask(lambda: self.client.get_model_version(self.model, number))
        tags = dict(entry.tags)
        return tags.get(VERSION_TAG), tags

    def register(self, version: str, file: VersionFile | None, tags: Mapping[str, str]) -> str:
        """Register our version (its weights, record and probe; for the base model, `file` None, nothing but the name).

        Registering again returns the number that stands. A crash half-way leaves at most a logged model without a
        registered version, which the next call does not mind.

        Raises:
            Unavailable: MLflow did not answer.
            Refused: it answers and does not do it, as its experiment is deleted, say.
        """
        number = self.number_of(version)
        if number is not None:
            return number
        return str(self._ask(lambda: self._create(version, file, dict(tags))))

    def set_alias(self, alias: str, number: str | None) -> None:
        """Point an alias at a number, or take it away."""
        if number is None:
            self._ask(lambda: self.client.delete_registered_model_alias(self.model, alias))
        else:
            self._ask(lambda: self.client.set_registered_model_alias(self.model, alias, number))

    def set_tags(self, number: str, tags: Mapping[str, str]) -> None:
        """Write tags on a model version."""
        for key, value in tags.items():
            self._ask(lambda key=key, value=value: self.client.set_model_version_tag(self.model, number, key, value))

    def subscribe(self, name: str, url: str, secret: str, events: Sequence[str]) -> None:
        """Have MLflow call `url` on these events, signed with `secret`; again with other values changes the webhook."""
        facts = {"name": name, "url": url, "secret": secret, "events": list(events)}
        token: str | None = None
        while True:
            page = self._ask(lambda token=token: self.client.list_webhooks(page_token=token))
            for webhook in page:
                if webhook.name == name:
                    self._ask(lambda known=webhook.webhook_id: self.client.update_webhook(known, **facts))
                    return
            token = page.token
            if not token:
                break
        self._ask(lambda: self.client.create_webhook(**facts))

    def describe(self, number: str, text: str) -> None:
        """What a person reads on the model version's page."""
        self._ask(lambda: self.client.update_model_version(self.model, number, description=text))

    def _create(self, version: str, file: VersionFile | None, tags: dict[str, str]) -> str:
        from mlflow.exceptions import MlflowException

        if self._model() is None:
            try:
                self.client.create_registered_model(self.model, description="Versions released by Ratchet's ledger.")
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        found = self.client.get_experiment_by_name(self.experiment)
        if found is not None and found.lifecycle_stage == "deleted":
            raise deleted_experiment(self.experiment)
        experiment_id = found.experiment_id if found else self.client.create_experiment(self.experiment)
        made = find_model(self.client, experiment_id, version) if file is not None else None
        params = {"version": version}
        if file is not None:
            params |= {"digest": file.digest, "kind": file.kind, "key": file.record.key}
        if made is None:
            logged = self.client.create_logged_model(
                experiment_id, name=version, params=params, tags={VERSION_TAG: version}, model_type="adapter"
            )
            made = str(logged.model_id)
            if file is not None:
                self.client.log_model_artifacts(made, str(file.folder))
            self.client.finalize_logged_model(made, "READY")
        entry = self.client.create_model_version(
            self.model,
            source=f"models:/{made}",
            model_id=made,
            tags={**tags, VERSION_TAG: version},
            await_creation_for=10,
        )
        return str(entry.version)

    def _model(self) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_registered_model(self.model)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
                return None
            raise

    def _numbered(self) -> list[Any]:
        found: list[Any] = []
        token: str | None = None
        while True:
            page = self.client.search_model_versions(f"name = '{self.model}'", max_results=500, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _ask(self, question: Any) -> Any:
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            return question()
        except (MlflowException, RequestException, OSError) as error:
            if not isinstance(error, MlflowException | RequestException) or did_not_answer(error):
                raise Unavailable(f"MLflow at {self.url} did not do it: {one_line(error)}") from error
            # It answers, and will say the same at every look: somebody must be told.
            raise of_everything(error) or Refused(
                f"MLflow at {self.url} refuses what the model {self.model} needs ({one_line(error)})", "model"
            ) from error


def wanted(standing: Standing) -> dict[str, str | None]:
    """Alias -> our version that it should hold; the ledger's word."""
    return {
        CHAMPION: standing.champion,
        CHALLENGER: standing.canary or standing.gated,
        PREVIOUS: standing.previous,
    }


def hand_moves(engine: Engine, registry: Registry, tenant: str) -> list[HandMove]:
    """Aliases that hold neither what Ratchet wrote last nor what it was about to write.

    An alias that Ratchet never wrote and MLflow does not have is nobody's move.
    """
    found, written, moves = registry.aliases(), _written(engine, tenant), []
    for alias in ALIASES:
        holds = found.get(alias)
        value, pending = written.get(alias, (None, None))
        if holds == value or (pending is not None and holds == (pending or None)):
            continue
        version, tags = registry.version_of(holds) if holds is not None else (None, {})
        moves.append(HandMove(alias=alias, found=holds, version=version, tags=tags, last_written=value))
    return moves


def follow(engine: Engine, registry: Registry, standing: Standing, files: Mapping[str, VersionFile]) -> list[str]:
    """Make the aliases say what the ledger says; returns those that were moved. Look for hand moves first.

    Args:
        files: our versions by name, for those not registered yet (the base model has none).

    Raises:
        Unavailable: MLflow did not answer; nothing is lost, the next call goes on.
    """
    found, known, moved = registry.aliases(), registry.registered(), []
    for alias, version in wanted(standing).items():
        number = None
        if version is not None and version in known:
            number = known[version][0]
        elif version is not None:
            tags = _tags(standing, version)
            number = registry.register(version, files.get(version), tags)
            known[version] = (number, {VERSION_TAG: version, **tags})
        if found.get(alias) != number:
            _note(
                engine,
                standing,
                alias,
                value=_written(engine, standing.tenant).get(alias, (None, None))[0],
                pending=number or _TAKEN_AWAY,
            )
            registry.set_alias(alias, number)
            moved.append(alias)
        _note(engine, standing, alias, value=number, pending=None)
    _mend_tags(registry, standing, history(engine, standing.tenant), known)
    return moved


def _mend_tags(
    registry: Registry,
    standing: Standing,
    told: Sequence[Entry],
    known: Mapping[str, tuple[str, Mapping[str, str]]],
) -> None:
    """Make the page of every version say what the ledger says, whether an alias was moved just now or not.

    So one that lost its alias does not go on saying that it is live, and what a kill left half written is mended at
    the next look. Only what differs is written; the ledger's place alone (`ratchet.seq`) is no reason to.
    """
    ours = standing.pinned | set(standing.barred) | set(standing.champions) | {line.version for line in told}
    for version in sorted(ours & set(known)):
        number, there = known[version]
        wanted_tags = {**_tags(standing, version), **links_of(told, version)}
        place = wanted_tags.pop(SEQ_TAG)
        changed = {name: value for name, value in wanted_tags.items() if there.get(name) != value}
        if changed or SEQ_TAG not in there:
            # The tags come last: as long as they differ, the next look writes all of it again.
            registry.describe(number, description(told, version))
            registry.set_tags(number, {SEQ_TAG: place, **changed})


def links_of(lines: Sequence[Entry], version: str) -> dict[str, str]:
    """Where a version comes from, as tags: its night, snapshot and MLflow run, and the ledger lines about it."""
    about = [line for line in lines if line.version == version]
    gate = next((dict(line.evidence["gate"]) for line in reversed(about) if line.evidence.get("gate")), {})
    night = next((line.night_id for line in about if line.night_id), None)
    found = {
        "ratchet.night": night,
        "ratchet.snapshot": gate.get("snapshot"),
        "ratchet.run": gate.get("mlflow_run"),
        "ratchet.gain": gate.get("gain"),
        "ratchet.decision": gate.get("decision"),
        "ratchet.lines": ",".join(str(line.seq) for line in about),
    }
    return {name: str(value) for name, value in found.items() if value}


def description(lines: Sequence[Entry], version: str) -> str:
    """What somebody who decides on a version must know: why it passed, what became of it, what made it."""
    about = [line for line in lines if line.version == version]
    links = links_of(lines, version)
    head = [f"**{version}**"]
    if links.get("ratchet.gain"):
        head.append(f"gain over the champion it was judged against: {float(links['ratchet.gain']):+.3f}")
    told = [
        f"- {line.at:%Y-%m-%d %H:%M} line {line.seq}: **{line.action}** by {line.actor}. {line.reason}"
        for line in about
    ]
    made = [
        f"- {name.removeprefix('ratchet.')}: `{links[name]}`"
        for name in ("ratchet.night", "ratchet.snapshot", "ratchet.run")
        if name in links
    ]
    return "\n".join([", ".join(head), "", *told, *(["", "Made of:", *made] if made else [])])[:4900]


def _tags(standing: Standing, version: str) -> dict[str, str]:
    if version in standing.barred:
        state = "barred"
    elif version == standing.champion:
        state = "champion"
    elif version == standing.canary:
        state = "canary"
    elif version == standing.gated:
        state = "gated"
    else:
        state = "superseded" if version in standing.champions else "withdrawn"
    return {STATE_TAG: state, SEQ_TAG: str(standing.seq), "ratchet.tenant": standing.tenant}


def _written(engine: Engine, tenant: str) -> dict[str, tuple[str | None, str | None]]:
    with engine.connect() as connection:
        rows = connection.execute(select(written_aliases).where(written_aliases.c.tenant == tenant))
        return {row.alias: (row.value, row.pending) for row in rows}


def _note(engine: Engine, standing: Standing, alias: str, *, value: str | None, pending: str | None) -> None:
    here = (written_aliases.c.tenant == standing.tenant) & (written_aliases.c.alias == alias)
    with begin_write(engine) as connection:
        row = connection.execute(select(written_aliases).where(here)).first()
        if row is not None and (row.value, row.pending) == (value, pending):
            return
        connection.execute(delete(written_aliases).where(here))
        connection.execute(
            insert(written_aliases).values(
                tenant=standing.tenant,
                alias=alias,
                value=value,
                pending=pending,
                seq=standing.seq,
                written_at=now(),
            )
        )
