"""Accuracy over the last so many requests, exact, and the worst that it ever was."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WorstWindow:
    """The window of consecutive requests with the fewest right answers, the first of equals.

    It begins with the answer number `first` and has `requests` of them: fewer than asked for only
    where the mission had fewer.
    """

    right: int
    requests: int
    first: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.requests


class SlidingAccuracy:
    """Counts the right answers among the last `size` ones, at least one."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.right = self.answers = 0
        self._ring = bytearray(size)
        self._worst: WorstWindow | None = None
        self._least = size + 1

    def add(self, right: bool) -> None:
        """Take in an answer."""
        place = self.answers % self.size
        self.right += right - self._ring[place]
        self._ring[place] = right
        self.answers += 1
        if self.answers >= self.size and self.right < self._least:
            self._least = self.right
            self._worst = WorstWindow(self.right, self.size, self.answers - self.size)

    @property
    def is_full(self) -> bool:
        """Whether there have been enough answers for a window."""
        return self.answers >= self.size

    @property
    def worst(self) -> WorstWindow | None:
        """The worst full window; of too few answers, all of them; of none, None."""
        if self._worst is None and self.answers:
            return WorstWindow(self.right, self.answers, 0)
        return self._worst
