"""What a comparison finds: the dataclasses that are printed, and written to the file of `--json`."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Compared:
    """A metric of two runs; an interval is of 95%, None where too few resamples have a value."""

    name: str  # as it is printed: f1 of 'spam'
    values: tuple[float, float]
    intervals: tuple[tuple[float, float] | None, tuple[float, float] | None]
    difference: float  # the second's less the first's
    interval: tuple[float, float] | None
    p_value: float | None
    test: str | None
    lower_is_better: bool
    p_holm: float | None = None  # corrected for the number of runs that are compared with the first


@dataclass(kw_only=True)
class ComparedRuns:
    """A metric in the runs of two commands."""

    name: str
    means: tuple[float, float]
    sds: tuple[float, float]
    difference: float  # mean of the second's less the first's
    difference_sd: float
    pairs: int
    p_value: float | None
    test: str | None
    lower_is_better: bool
    p_holm: float | None = None


@dataclass(kw_only=True)
class SplitComparison:
    """One split of two runs."""

    split: str
    rows: int = 0  # in both
    only: tuple[int, int] = (0, 0)  # in one of them alone
    metrics: dict[str, Compared] = field(default_factory=dict)  # of the rows of both
    runs: dict[str, ComparedRuns] = field(default_factory=dict)  # of --folds or --seeds
    saved: dict[str, list[Any]] = field(default_factory=dict)  # other metrics of results.json, which are not tested
    examples: list[int | None] = field(default_factory=list)  # of each run, as saved
    headline: str | None = None  # the metric of the conclusion
    won: list[dict[str, Any]] = field(default_factory=list)  # the texts that each alone gets right
    notes: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Comparison:
    """A run beside the first."""

    runs: tuple[str, str]
    splits: list[SplitComparison]
    notes: list[str]
