"""Define models of what is stored, perhaps read by an earlier or by a later release of Ratchet.

A later release adds fields. One that does not know them must neither refuse the row nor lose them when it writes the
thing again, else going back one release would cost what was said meanwhile. What comes from outside (a request, a file
to import) is no stored body: whoever takes it in validates it with `extra="forbid"`, so that a misspelt field is told.

A change that an earlier release would misread gets a new number in `FORMS`; files of form 1 say none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, model_validator

from infra.errors import UserError
from infra.settings import Config

Kind = Literal["lake", "index of the past", "firewall", "night", "snapshot", "record"]
FORMS: Mapping[Kind, int] = {
    "lake": 1,
    "index of the past": 2,  # SQLite's user_version; 2 since how band keys are made was numbered
    "firewall": 1,
    "night": 1,
    "snapshot": 1,
    "record": 1,
}
"""The newest form of each thing on disk that this release knows. SQL tables have revisions instead."""


class NewerForm(UserError):
    """Something on disk was written by a later release, in a form that this one would misread."""


def refuse_newer(kind: Kind, form: object, path: str) -> None:
    """Check that a form is one that this release knows.

    Raises:
        NewerForm: it is not.
    """
    if not isinstance(form, int) or form > FORMS[kind]:
        raise NewerForm(
            f"{path} has form {form!r} of a {kind}, this release of Ratchet knows up to {FORMS[kind]}: a newer one "
            "wrote it; use that one, or restore the backup made before it"
        )


class Stored(Config):
    """Frozen; fields that it does not know are kept, and are in what it dumps."""

    model_config = ConfigDict(extra="allow")


class StoredFile(Stored):
    """What one whole file holds; `form` in it says in which form, 1 where it says none."""

    kind_of_file: ClassVar[Kind]

    @model_validator(mode="before")
    @classmethod
    def _of_a_known_form(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            refuse_newer(cls.kind_of_file, data.get("form", 1), f"what was read as {cls.__name__}")
        return data
