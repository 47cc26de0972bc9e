"""The command `ratchet`. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import signal
import threading
from types import FrameType


def main(argv: list[str] | None = None) -> None:
    """Run the command line. Errors with a meaning are one line on stderr, never a stack trace."""
    from flows.cli.app import app
    from flows.cli.output import note
    from infra.errors import RatchetError
    from infra.processes.threads import wait_passively

    wait_passively()
    from infra.file_permissions import close_files

    close_files()
    if threading.current_thread() is threading.main_thread():
        # A terminated command stops what it started, as an interrupted one does.
        signal.signal(signal.SIGTERM, _terminated)
    try:
        app(args=argv, prog_name="ratchet")
    except RatchetError as error:
        note(f"error: {error}")
        raise SystemExit(error.exit_code) from None


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
