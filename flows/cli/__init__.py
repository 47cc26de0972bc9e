"""The command `ratchet`. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> None:
    """Run the command line. Errors with a meaning are one line on stderr, never a stack trace."""
    from flows.cli.app import app
    from infra.errors import RatchetError

    try:
        app(args=argv, prog_name="ratchet")
    except RatchetError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
