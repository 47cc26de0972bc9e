"""A database that does not answer is told in one line, without its password."""

from __future__ import annotations

import pytest

from infra.database.open import open_database
from infra.errors import Unavailable
from infra.settings import Places


def test_a_database_that_is_away_is_said_in_a_line() -> None:
    places = Places(database_url="postgresql+psycopg://somebody:secret@127.0.0.1:1/ratchet")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1/ratchet does not answer") as caught:
        open_database(places)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
