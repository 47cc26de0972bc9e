"""Lock files: one holder, what the refused one learns of it, and that a look does not take the lock."""

import threading
from pathlib import Path

import pytest

from infra.processes.locks import LockHeld, file_lock, try_file_lock


def test_one_holder_at_a_time_and_who_it_is(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.lock"
    with try_file_lock(path, note="process 7"):
        with pytest.raises(LockHeld, match=r"^process 7$"), try_file_lock(path):
            pass
        with pytest.raises(LockHeld), try_file_lock(path, shared=True):
            pass
    with try_file_lock(path, note="process 8"):
        assert path.read_text() == "process 8"
    with try_file_lock(path, shared=True), try_file_lock(path, shared=True):
        pass


def test_the_next_one_waits(tmp_path: Path) -> None:
    path, order = tmp_path / "a.lock", []

    def wait() -> None:
        with file_lock(path):
            order.append("second")

    with file_lock(path):
        other = threading.Thread(target=wait)
        other.start()
        other.join(timeout=0.2)
        assert other.is_alive()
        order.append("first")
    other.join(timeout=10)
    assert order == ["first", "second"]
