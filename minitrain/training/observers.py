"""Several observers of one training: trackers, plots, records of the user's own.

An observer has `on_step`, `on_evaluation`, or both (`Observer` in `loop.py` says what they get).
"""

from collections.abc import Callable, Iterable
from typing import Any

from minitrain.errors import MinitrainError, cut, shown

EVENTS = ("on_step", "on_evaluation")


class Observers:
    """Tells the first observer, then each of the user's, in the order given.

    Raises:
        MinitrainError: One of the user's raises; the message names it, and its exception is the cause.
    """

    def __init__(self, first: Any, users: Iterable[Any]) -> None:
        self.first, self.users = first, list(users)

    def on_step(self, *event: Any) -> None:
        self._tell("on_step", event)

    def on_evaluation(self, *event: Any) -> None:
        self._tell("on_evaluation", event)

    def _tell(self, name: str, event: tuple[Any, ...]) -> None:
        getattr(self.first, name)(*event)
        for observer in self.users:
            method: Callable[..., object] | None = getattr(observer, name, None)
            if method is None:
                continue
            try:
                method(*event)
            except Exception as error:
                raise MinitrainError(
                    f"{type(observer).__name__}.{name}, an observer of yours, raised {type(error).__name__}: "
                    f"{cut(error)}"
                ) from error


def check_observers(observers: Any) -> list[Any]:
    """The observers as a list. Raises MinitrainError for what cannot observe."""
    if not isinstance(observers, Iterable) or isinstance(observers, str):
        raise MinitrainError(f"observers is {shown(observers)}; expected a list: observers=[{_type(observers)}]")
    observers = list(observers)
    for place, observer in enumerate(observers):
        where = f"observers[{place}] is {shown(observer)}"
        if isinstance(observer, type):
            raise MinitrainError(f"{where}, a class; expected an object of it: {observer.__name__}()")
        if not any(callable(getattr(observer, event, None)) for event in EVENTS):
            raise MinitrainError(f"{where}; an observer has a method {' or '.join(EVENTS)}, or both")
    return observers


def _type(value: Any) -> str:
    return f"{type(value).__name__}()"
