"""The one exception type that minitrain raises for what a user can mend.

A message says what was got, what was expected, where (file, row, column, key, flag, rank) and what to do.
Broken invariants of our own are `assert`s, not this.
"""


class MinitrainError(ValueError):
    """Bad input, a bad file or a bad flag: the message says where and what to do about it."""


class PeerError(MinitrainError):
    """Another process of the run failed; this one only ends too.

    alone: whether no process has said why, so that this one is to speak.
    """

    def __init__(self, message: str, alone: bool = False) -> None:
        super().__init__(message)
        self.alone = alone


class Stopped(KeyboardInterrupt):
    """A signal asked the run to stop, and it did, after a step. signal: its number."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message, signal)
        self.signal = signal

    def __str__(self) -> str:
        return str(self.args[0])
