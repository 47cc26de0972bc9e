"""Look up extensions by name: what Ratchet brings first, then what installed packages register as entry points.

A registry is a mapping from names to things of one kind (objectives, metrics, file formats ...). A package of somebody
else adds to it by an entry point of the group ``ratchet.<kind>``, such as

    [project.entry-points."ratchet.metrics"]
    politeness = "their_package.politeness"

whose module defines what a built-in's module defines. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from infra.errors import NotFound, UserError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")
log = logging.getLogger(__name__)


class Registry(Mapping[str, T], Generic[T]):
    """Extensions of one kind by name.

    Args:
        kind: plural, as in the entry points' group.
        noun: singular, for messages.
        built_in: name -> module that defines the thing, or the thing itself.
        attribute: what its module calls it; None: the module is the thing.
        of: its class, which is checked; None: whatever offers `offers`.
        offers: functions and classes that it must have.
        own: how else a thing may be named, for messages.
    """

    def __init__(
        self,
        kind: str,
        noun: str,
        built_in: Mapping[str, str | T],
        *,
        attribute: str | None = None,
        of: type[T] | None = None,
        offers: tuple[str, ...] = (),
        own: str = "",
    ) -> None:
        self.kind, self.noun, self.built_in = kind, noun, built_in
        self.attribute, self.of, self.offers, self._own = attribute, of, offers, own
        self._loaded: dict[str, T] = {}

    @property
    def group(self) -> str:
        """Group of entry points by which other packages add to it."""
        return f"ratchet.{self.kind}"

    @cached_property
    def plug_ins(self) -> Mapping[str, EntryPoint]:
        """Name -> entry point of an installed package; a name that is built in is nobody else's."""
        added: dict[str, EntryPoint] = {}
        for point in _entry_points().get(self.group, ()):
            if point.name in self.built_in:
                owner = "built in"
            elif point.name in added:
                owner = f"of {_package(added[point.name])}"
            else:
                added[point.name] = point
                continue
            log.warning("%s %r of %s is left out: the name is %s", self.noun, point.name, _package(point), owner)
        return added

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or name in self.plug_ins

    def __iter__(self) -> Iterator[str]:
        yield from self.built_in
        yield from self.plug_ins

    def __len__(self) -> int:
        return len(self.built_in) + len(self.plug_ins)

    def __getitem__(self, name: str) -> T:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def named(self, name: str) -> T:
        """The thing called `name`.

        Raises:
            NotFound: there is none; the message lists those there are.
            UserError: another package's cannot be used.
        """
        if name not in self:
            raise NotFound(self.unknown(name))
        return self[name]

    def unknown(self, name: str) -> str:
        """What to say of a name that is none of these."""
        return f"unknown {self.noun} {name!r}; expected one of {', '.join(self)}{self._own}"

    def _load(self, name: str) -> T:
        known = self.built_in.get(name)
        if known is not None and not isinstance(known, str):
            return known
        if known is not None:
            return self._checked(import_module(known), name)
        point = self.plug_ins[name]
        try:
            return self._checked(point.load(), name)
        except Exception as error:  # somebody else's code may fail in any way
            why = " ".join(str(error).split())[:300]
            raise UserError(
                f"{self.noun} {name!r} of {_package(point)} ({point.value}) cannot be used: {why}; mend or remove it"
            ) from error

    def _checked(self, given: Any, name: str) -> T:
        thing = getattr(given, self.attribute) if self.attribute and hasattr(given, self.attribute) else given
        missing = [function for function in self.offers if not hasattr(thing, function)]
        if missing:
            raise TypeError(f"it does not define {', '.join(missing)}")
        if self.of is not None and not isinstance(thing, self.of):
            raise TypeError(f"expected {self.attribute or 'an object'} of class {self.of.__name__}")
        called = getattr(thing, "name", name)
        if self.of is not None and called != name:
            raise TypeError(f"it calls itself {called!r}")
        return thing  # type: ignore[no-any-return]


@cache
def _entry_points() -> Mapping[str, tuple[EntryPoint, ...]]:
    """Group -> entry points of installed packages, for our groups; read once a process."""
    if not _mentioned():
        return {}
    from importlib.metadata import entry_points

    every = entry_points()
    return {group: tuple(every.select(group=group)) for group in every.groups if group.startswith("ratchet.")}


def _mentioned() -> bool:
    """Whether an installed package mentions a group of ours. Far cheaper than to parse them all, for commands' help."""
    for place in map(Path, sys.path):
        if place.is_file():
            return True  # an archive: its packages are not looked at here
        for folder in (*place.glob("*.dist-info"), *place.glob("*.egg-info")):
            listed = folder / "entry_points.txt"
            if listed.is_file() and b"[ratchet." in listed.read_bytes():
                return True
    return False


def _package(point: EntryPoint | None) -> str:
    return f"package {point.dist.name} {point.dist.version}" if point and point.dist else "a package"
