"""Axes, legends and curves as all pictures of a report have them."""

import math
from collections.abc import Sequence
from typing import Any

from minitrain.data.labels.notes import plain

POINTS = 400  # of a curve: about its pixels
HIGHER_SCALE = 50  # the highest of a curve over its median, from which the axis is logarithmic


def thinned(xs: Sequence[float], ys: Sequence[float], points: int = POINTS) -> tuple[list[float], list[float]]:
    """A curve with at most about `points` points: of each stretch its lowest and its highest, so that peaks stay.

    Points that are not finite are left out.

    >>> thinned(range(1000), [0.0] * 500 + [9.0] + [1.0] * 499, 4)
    ([0, 500, 501, 999], [0.0, 9.0, 1.0, 1.0])
    """
    finite = [i for i, y in enumerate(ys) if math.isfinite(y)]
    if len(finite) > points:
        length = math.ceil(len(finite) / (points / 2))
        stretches = [finite[i : i + length] for i in range(0, len(finite), length)]
        ends = [{min(part, key=ys.__getitem__), max(part, key=ys.__getitem__)} for part in stretches]
        finite = sorted({finite[0], finite[-1]}.union(*ends))
    return [xs[i] for i in finite], [ys[i] for i in finite]


def axes_in(figure: Any, x: str, y: str, place: Any = None, end: float | None = None) -> Any:
    """Axes with few, short numbers.

    Args:
        place: A cell of a grid.
        end: The highest x, from 0 on; by default what the data need.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes = figure.add_subplot() if place is None else figure.add_subplot(place)
    axes.set(xlabel=x, ylabel=y)
    if end is not None:
        axes.set_xlim(-0.02 * end, 1.02 * end)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    return axes


def legend_of(figure: Any, columns: int = 3) -> None:
    """The legend above the axes, where it covers nothing."""
    figure.legend(loc="outside upper left", ncols=columns, handlelength=2.2, columnspacing=1.2)


def log_scale(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic axis if one peak would press all else flat."""
    from matplotlib.ticker import LogFormatter, LogLocator

    ordered = sorted(value for value in values if math.isfinite(value))
    if ordered and ordered[0] > 0 and ordered[-1] > HIGHER_SCALE * ordered[len(ordered) // 2]:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_major_formatter(LogFormatter())


def short(name: str) -> str:
    """A user's name for a legend."""
    return plain(name, 24)
