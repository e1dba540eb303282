"""What a user is told about texts longer than the model reads: how many, and how much of them is read."""

from collections import Counter
from collections.abc import Iterable

from minitrain.config.long_texts import MAX_WINDOWS, LongTexts
from minitrain.data.dataset import Split
from minitrain.data.tokenizer.tokenizer import Tokenizer


def counts_of(splits: Iterable[Split], before: Counter[str] | None = None) -> Counter[str]:
    """Texts and tokens of splits, added to those counted before.

    rows: texts. truncated: texts that are not read whole; removed, kept: their tokens that are not read, and those
    that are. windows: of all texts; most: of one text.
    """
    counts = Counter(before or {})
    for split in splits:
        read = split.truncated * (max(split.lengths, default=0) - split.special)
        windows = [1]
        if split.windows is not None and split.window_rows is not None:
            # Texts of more than `max_windows` windows all have the same number of tokens in them.
            read = split.truncated * split.windows.read(max(split.lengths, default=0))
            windows = [*split.window_rows.counts] or windows
            counts["windows"] += sum(windows)
        counts.update(rows=len(split), truncated=split.truncated, removed=split.removed, kept=read)
        counts["most"] = max(counts["most"], max(windows))
    return counts


def length_notes(counts: Counter[str], max_length: int, long_texts: LongTexts, tokenizer: Tokenizer) -> list[str]:
    """The windows that the texts are read in, and the texts that are not read whole; empty if there are none."""
    rows, cut, notes = counts["rows"], counts["truncated"], []
    longer = f"{max_length} tokens; {_part(long_texts, tokenizer)} keeps"
    if long_texts.long_texts == "windows":
        most = long_texts.max_windows or MAX_WINDOWS
        longer = f"{most} window{'s' * (most > 1)} (--max_windows), which keep{'s' * (most == 1)}"
    if counts["windows"] > rows:
        notes.append(
            f"{rows} texts are read in {counts['windows']} windows of {max_length} tokens, at most "
            f"{counts['most']} a text"
        )
    if cut:
        share = counts["kept"] / (counts["kept"] + counts["removed"])
        notes.append(
            f"{cut} of {rows} texts {'is' if cut == 1 else 'are'} longer than {longer} {share:.0%} of their tokens"
        )
    return notes


def _part(long_texts: LongTexts, tokenizer: Tokenizer) -> str:
    by_files = long_texts.long_texts == "head" and tokenizer.settings["truncation_side"] == "left"
    return "head (the end, as the tokenizer's truncation_side says)" if by_files else long_texts.long_texts
