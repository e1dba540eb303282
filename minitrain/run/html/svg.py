"""One matplotlib picture as SVG inside a page: text as text, colours from the page's CSS, ids unique in the page.

matplotlib's global settings stay as they are, and `pyplot`, which would open windows, is not imported.
"""

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import Any

from minitrain.data.labels.notes import plain

WIDTH, HEIGHT = 5.0, 3.0  # inches of 72 points: one column of a phone
# Colours that stand for the page's: the first is drawn by matplotlib, the second written to the page.
INK, FAINT, GRID = "#010101", "#020202", "#030303"
SERIES = ("#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005")
_CSS = {INK: "var(--ink)", FAINT: "var(--faint)", GRID: "var(--grid)"}
_CSS |= {color: f"var(--series{number})" for number, color in enumerate(SERIES, 1)}
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))  # with colours, so that neither is needed alone
MARKERS = ("o", "s", "^", "D", "v")
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "text.parse_math": False,  # a $ in a name is a $
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "path.simplify": True,
}


def picture(name: str, says: str, draw: Callable[[Any], None], height: float = HEIGHT) -> str:
    """Draw, and return an <svg> element.

    Args:
        name: Unique in the page: letters, digits and dashes.
        says: The main thing that it shows, for those who do not see it.
        draw: Called with an empty `matplotlib.figure.Figure`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    out = io.StringIO()
    # A user's names may be in a script that the font lacks: the reader's browser has others.
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        matplotlib.rcdefaults()  # a user's style may ask for TeX, or for a sketch
        matplotlib.rcParams.update(_SETTINGS | {"svg.hashsalt": name})
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _inline(out.getvalue(), name, says)


def _inline(svg: str, name: str, says: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="([^"]+)"', svg)
    assert view is not None
    opening = f'<svg viewBox="{view[1]}" role="img" aria-label="{escape(plain(says, 300))}">'
    svg = opening + svg[svg.index(">") + 1 :]
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg).replace("xlink:href", "href")
    for color, css in _CSS.items():
        svg = svg.replace(color, css)
    svg = re.sub(r"font: ([0-9.]+px) 'DejaVu Sans'", r"font-size: \1", svg)
    return re.sub(r' d="[^"]+"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), svg).strip()
