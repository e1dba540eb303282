"""`LongTexts`: what becomes of texts longer than --max_length, and the flags that say it."""

from dataclasses import dataclass, replace

from minitrain.config.options import check_flags, flag
from minitrain.errors import MinitrainError

LONG_TEXTS = ("head", "tail", "head_tail", "windows")
POOLINGS = ("mean", "max")
MAX_WINDOWS = 8  # of a document by default: a training step holds the activations of all windows of its batch
OF_WINDOWS = ("stride", "max_windows", "window_pooling")


@dataclass(frozen=True, kw_only=True)
class LongTexts:
    """How texts longer than the maximal length are read. The fields are flags of the same names.

    Raises:
        MinitrainError: A value is out of range, or a setting of windows comes without windows.

    >>> LongTexts(long_texts="windows", stride=32).pooling
    'mean'
    """

    long_texts: str = flag("head", "which part of too long texts to read", LONG_TEXTS)
    stride: int | None = flag(None, "tokens that neighbouring windows share", bounds=(0, None))
    max_windows: int | None = flag(None, "windows of a text to read", bounds=(1, None))
    window_pooling: str | None = flag(None, "a text's logits from its windows'", POOLINGS)

    def __post_init__(self) -> None:
        check_flags(self)
        check_windows(self.long_texts, self.stride, self.max_windows, self.window_pooling)

    @property
    def pooling(self) -> str:
        """Mean or max of the logits of a text's windows."""
        return self.window_pooling or POOLINGS[0]

    def changed(
        self, long_texts: str | None, stride: int | None, max_windows: int | None, window_pooling: str | None
    ) -> "LongTexts":
        """These settings with those that are not None in their place; another kind of reading drops the rest."""
        kept = self if long_texts in (None, self.long_texts) else LongTexts(long_texts=long_texts)
        asked = {"stride": stride, "max_windows": max_windows, "window_pooling": window_pooling}
        return replace(kept, **{name: value for name, value in asked.items() if value is not None})  # type: ignore[arg-type]


def check_windows(long_texts: str, stride: int | None, max_windows: int | None, window_pooling: str | None) -> None:
    """Raise MinitrainError for a setting of windows without --long_texts windows."""
    for name, value in zip(OF_WINDOWS, (stride, max_windows, window_pooling), strict=True):
        if value is not None and long_texts != "windows":
            raise MinitrainError(
                f"--{name} {value} is about windows, and --long_texts is {long_texts}: pass --long_texts windows, "
                f"or leave --{name} out"
            )
