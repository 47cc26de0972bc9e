"""Define errors by who can mend them, each with an exit code.

A message says what is wrong, the value got, what was expected, what to do.
"""

from __future__ import annotations


class RatchetError(Exception):
    """Base of all errors Ratchet raises on purpose. The command line prints it as one line and exits with 1."""

    exit_code: int = 1


class UserError(RatchetError):
    """The person can mend it: a wrong setting, file, name or argument. Exit code 2."""

    exit_code = 2


class ConfigError(UserError):
    """The configuration is wrong; the message lists every mistake found, one a line."""


class NotFound(UserError):
    """Something that was named does not exist; the message names every place looked at."""


class CorruptArtifact(RatchetError):
    """The bytes on disk are not those the record promises, or no record was written."""


class Conflict(RatchetError):
    """A compare-and-set was lost: somebody else wrote first. Read again and decide anew."""


class Diverged(RatchetError):
    """The loss became infinite, not a number, or left the range it was in; the stage makes no artifact.

    Here and not beside the training loop, so that the process that launched the stage knows it again: the same seed and
    data would diverge again, so nothing is gained by another try.
    """


class Unavailable(RatchetError):
    """A service that is needed did not answer (engine, MLflow, Prefect, database, judge)."""
