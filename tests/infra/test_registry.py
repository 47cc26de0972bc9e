"""Extensions are found by name: built-in ones, then those of installed packages."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra import registry
from infra.errors import NotFound, UserError
from infra.registry import Registry


@dataclass(frozen=True)
class Shape:
    """A thing to register."""

    name: str


PLUG_IN = """
from tests.infra.test_registry import Shape

SHAPE = Shape("{name}")
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, as pip leaves them: code, and metadata beside it."""
    monkeypatch.syspath_prepend(tmp_path)
    registry._entry_points.cache_clear()
    yield tmp_path
    registry._entry_points.cache_clear()
    for name in [name for name in sys.modules if name.startswith("shapes_")]:
        del sys.modules[name]


def install(site: Path, package: str, points: dict[str, str], **files: str) -> None:
    """Lay out a package with entry points of our group."""
    (site / package).mkdir()
    for name, text in {"__init__": "", **files}.items():
        (site / package / f"{name}.py").write_text(text)
    about = site / f"{package}-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    lines = "\n".join(f"{name} = {value}" for name, value in points.items())
    (about / "entry_points.txt").write_text(f"[ratchet.shapes]\n{lines}\n")
    registry._entry_points.cache_clear()


def shapes() -> Registry[Shape]:
    """Two of our own: by module, and the thing itself."""
    return Registry("shapes", "shape", {"ring": Shape("ring")}, attribute="SHAPE", of=Shape, own=", or a file")


def test_built_in_things_come_first_and_need_no_look_at_packages() -> None:
    assert "ring" in shapes() and shapes()["ring"] == Shape("ring")
    with pytest.raises(NotFound, match="unknown shape 'cube'; expected one of ring, or a file"):
        shapes().named("cube")
    assert shapes().get("cube") is None


def test_an_installed_package_adds_its_own(site: Path) -> None:
    install(site, "shapes_a", {"cube": "shapes_a.cube"}, cube=PLUG_IN.format(name="cube"))
    known = shapes()
    assert list(known) == ["ring", "cube"] and len(known) == 2
    assert "shapes_a.cube" not in sys.modules, "naming it imports nothing"
    assert known.named("cube") == Shape("cube")


def test_a_name_that_is_taken_stays_whose_it_was(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    install(site, "shapes_a", {"ring": "shapes_a.ring", "cube": "shapes_a.cube"}, cube=PLUG_IN.format(name="cube"))
    install(site, "shapes_b", {"cube": "shapes_b.cube"})
    with caplog.at_level(logging.WARNING):
        known = shapes()
        assert list(known) == ["ring", "cube"]
    assert known["ring"] == Shape("ring")
    assert "shape 'ring' of package shapes_a 1.2 is left out: the name is built in" in caplog.messages
    assert sum("'cube'" in message for message in caplog.messages) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("raise RuntimeError('no licence')", "no licence"),
        ("import not_there_at_all", "No module named 'not_there_at_all'"),
        ("SHAPE = 3", "expected SHAPE of class Shape"),
        (PLUG_IN.format(name="ball"), "it calls itself 'ball'"),
        ("", "expected SHAPE of class Shape"),
    ],
)
def test_a_package_that_cannot_be_used_is_named_in_one_line(site: Path, text: str, says: str) -> None:
    install(site, "shapes_a", {"cube": "shapes_a.cube"}, cube=text)
    with pytest.raises(UserError) as refused:
        shapes().named("cube")
    message = str(refused.value)
    assert message.startswith("shape 'cube' of package shapes_a 1.2 (shapes_a.cube) cannot be used: ")
    assert says in message and "\n" not in message


def test_modules_may_be_things_themselves(site: Path) -> None:
    install(site, "shapes_a", {"cube": "shapes_a.cube", "ball": "shapes_a.ball"}, cube="def draw(): ...", ball="")
    known: Registry[object] = Registry("shapes", "shape", {}, offers=("draw",))
    assert known["cube"] is sys.modules["shapes_a.cube"]
    with pytest.raises(UserError, match="it does not define draw"):
        known.named("ball")
