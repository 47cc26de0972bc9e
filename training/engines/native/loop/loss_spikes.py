"""Detect spikes of the training loss against its usual noise."""

from __future__ import annotations

from collections.abc import Iterable


class LossSpikeDetector:
    """Detect two losses in a row above 5 x |median| + 1 of the last 20 normal ones."""

    def __init__(self) -> None:
        self.recent: list[float] = []
        self.high = 0

    @classmethod
    def after(cls, losses: Iterable[float]) -> LossSpikeDetector:
        """Make a detector that has had these losses already: a resumed stage's knows what is usual."""
        detector = cls()
        for loss in losses:
            detector.add(loss)
        return detector

    def add(self, loss: float) -> float | None:
        """Take the next step's loss; return the usual loss if this is the second spike in a row, else None."""
        usual = sorted(self.recent)[len(self.recent) // 2] if len(self.recent) >= 20 else None
        self.high = self.high + 1 if usual is not None and loss > 5 * abs(usual) + 1 else 0
        if not self.high:
            self.recent = [*self.recent[-19:], loss]
        return usual if self.high >= 2 else None
