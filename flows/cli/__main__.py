"""``python -m flows.cli``, the same as ``ratchet``."""

from flows.cli import main

main()
