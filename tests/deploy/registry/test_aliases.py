"""MLflow's aliases follow the ledger, against a real server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from deploy.ledger.ledger import ReleaseState
from deploy.ledger.state import Watch
from deploy.registry.aliases import manual_moves, sync_aliases, written_aliases
from deploy.registry.model_registry import ModelRegistry
from deploy.versions.versions import VersionFile, load_version
from infra.database.connect import begin_write, connect, now
from infra.database.schema import create_tables
from infra.errors import Unavailable
from tests.deploy.stages import published


@pytest.fixture
def registry(mlflow_url: str, tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(mlflow_url, f"bot-{tmp_path.name}")


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path / 'db.sqlite'}")
    create_tables(engine)
    return engine


def files(tmp_path: Path, *contents: str) -> dict[str, VersionFile]:
    names = [published(tmp_path, content) for content in contents]
    return {name: load_version(tmp_path / "versions", name) for name in names}


def canary(version: str) -> ReleaseState:
    watch = Watch(
        version=version,
        previous="base-1",
        phase="canary",
        opened_seq=3,
        opened_at=now(),
        step=0,
        step_seq=3,
        step_at=now(),
        share=0.1,
        shares=((3, 0.1),),
    )
    return ReleaseState(
        tenant="t", seq=3, tenant_seq=3, champion="base-1", base="base-1", champions=("base-1",), watch=watch
    )


def live(version: str) -> ReleaseState:
    return ReleaseState(
        tenant="t",
        seq=4,
        tenant_seq=4,
        champion=version,
        previous="base-1",
        base="base-1",
        champions=("base-1", version),
    )


def test_aliases_and_tags_follow_and_adapters_are_kept_there(
    registry: ModelRegistry, engine: Engine, tmp_path: Path
) -> None:
    known = files(tmp_path, "one")
    [v1] = known
    assert sync_aliases(engine, registry, canary(v1), known) == ["champion", "challenger"]
    assert sync_aliases(engine, registry, canary(v1), known) == []
    assert {a: registry.version_of(n).version for a, n in registry.aliases().items()} == {
        "champion": "base-1",
        "challenger": v1,
    }
    assert sync_aliases(engine, registry, live(v1), known) == ["champion", "challenger", "previous"]
    assert manual_moves(engine, registry, "t") == []
    aliases = registry.aliases()
    assert {a: registry.version_of(n).version for a, n in aliases.items()} == {"champion": v1, "previous": "base-1"}
    assert registry.version_of(aliases["champion"]).tags["ratchet.state"] == "champion"

    entry = registry.client.get_model_version(registry.model, aliases["champion"])
    assert entry.source.startswith("models:/m-")
    model_id = entry.source.removeprefix("models:/")
    names = {item.path for item in registry.client.list_logged_model_artifacts(model_id)}
    assert {"adapter", "record.json", "probe.json"} <= names


def _tags(registry: ModelRegistry, version: str) -> Mapping[str, str]:
    return registry.registered()[version].tags


def test_a_version_that_loses_its_alias_stops_saying_that_it_is_live(
    registry: ModelRegistry, engine: Engine, tmp_path: Path
) -> None:
    known = files(tmp_path, "one", "two")
    v1, v2 = known
    sync_aliases(engine, registry, canary(v2), known)
    assert _tags(registry, v2)["ratchet.state"] == "canary"
    barred = canary(v2).model_copy(update={"watch": None, "barred": {v2: "complaints"}})
    assert sync_aliases(engine, registry, barred, known) == ["challenger"]
    assert _tags(registry, v2)["ratchet.state"] == "barred"
    sync_aliases(engine, registry, live(v1), known)
    assert (_tags(registry, v1)["ratchet.state"], _tags(registry, "base-1")["ratchet.state"]) == (
        "champion",
        "superseded",
    )


def test_tags_that_a_kill_left_behind_are_mended_at_the_next_look_and_only_then_written(
    registry: ModelRegistry, engine: Engine, tmp_path: Path
) -> None:
    known = files(tmp_path, "one")
    [v1] = known
    sync_aliases(engine, registry, live(v1), known)
    number = registry.number_of(v1)
    assert number is not None
    registry.set_tags(number, {"ratchet.state": "canary"})  # as if killed between the alias and its tags
    registry.describe(number, "old")
    assert sync_aliases(engine, registry, live(v1), known) == []
    assert _tags(registry, v1)["ratchet.state"] == "champion"
    page = registry.client.get_model_version(registry.model, number)
    assert v1 in page.description
    assert sync_aliases(engine, registry, live(v1).model_copy(update={"seq": 9}), known) == []
    same = registry.client.get_model_version(registry.model, number)
    assert same.last_updated_timestamp == page.last_updated_timestamp, "nothing differs, so nothing is written"
    assert same.tags["ratchet.seq"] == "4"


def test_registering_again_makes_no_second_version(registry: ModelRegistry, tmp_path: Path) -> None:
    known = files(tmp_path, "one")
    [v1] = known
    assert registry.number_of(v1) is None
    assert registry.register(v1, known[v1], {}) == registry.register(v1, known[v1], {}) == registry.number_of(v1) == "1"


def test_an_alias_moved_by_hand_is_noticed_and_our_own_late_write_is_not(
    registry: ModelRegistry, engine: Engine, tmp_path: Path
) -> None:
    known = files(tmp_path, "one", "two")
    v1, v2 = known
    sync_aliases(engine, registry, live(v1), known)
    two = registry.register(v2, known[v2], {"ratchet.override_by": "ada"})
    registry.set_alias("champion", two)
    [move] = manual_moves(engine, registry, "t")
    assert (move.alias, move.number, move.version) == ("champion", two, v2)
    assert move.tags["ratchet.override_by"] == "ada" and move.last_written == registry.number_of(v1)

    # A crash between our write to MLflow and our note of it leaves the value as pending: nobody's hand.
    with begin_write(engine) as connection:
        connection.execute(update(written_aliases).where(written_aliases.c.alias == "champion").values(pending=two))
    assert manual_moves(engine, registry, "t") == []

    sync_aliases(engine, registry, live(v1), known)
    registry.set_alias("champion", None)
    [gone] = manual_moves(engine, registry, "t")
    assert (gone.number, gone.version) == (None, None)
    assert sync_aliases(engine, registry, live(v1), known) == ["champion"]
    assert manual_moves(engine, registry, "t") == []


def test_a_model_version_made_by_others_is_not_ours(registry: ModelRegistry, engine: Engine, tmp_path: Path) -> None:
    known = files(tmp_path, "one")
    [v1] = known
    sync_aliases(engine, registry, live(v1), known)
    logged = registry.client.create_logged_model("0", name="foreign")
    registry.client.finalize_logged_model(logged.model_id, "READY")
    foreign = registry.client.create_model_version(
        registry.model, source=f"models:/{logged.model_id}", model_id=logged.model_id
    )
    registry.set_alias("champion", foreign.version)
    [move] = manual_moves(engine, registry, "t")
    assert move.version is None and move.number == str(foreign.version)


def test_mlflow_being_down_is_said_and_loses_nothing(engine: Engine, tmp_path: Path) -> None:
    known = files(tmp_path, "one")
    [v1] = known
    with pytest.raises(Unavailable, match="MLflow at"):
        sync_aliases(engine, ModelRegistry("http://127.0.0.1:9", "bot"), live(v1), known)
