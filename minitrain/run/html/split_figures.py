"""The pictures of a split's predictions: calibration, thresholds, and the scores of a regression."""

from typing import Any

from minitrain.run.html.axes import axes_in, legend_of
from minitrain.run.html.markup import figure, name, number, rounded
from minitrain.run.html.scored import ScoredSplit
from minitrain.run.html.svg import DASHES, FAINT, INK, SERIES, picture
from minitrain.training.calibration import BINS

DOTS = 1000  # of a scatter plot


def reliability(split: str, scored: ScoredSplit, place: int, stored: float | None) -> str:
    """Accuracy beside confidence, with the calibration error.

    Args:
        place: Number of the split in the page.
        stored: The error in results.json, if the run fitted a calibration on this split.
    """
    bins = scored.reliability
    used = [(i, int(count)) for i, count in enumerate(bins.counts.tolist()) if count]
    confidence, right = bins.confidence.tolist(), bins.right.tolist()
    xs, ys = [confidence[i] / n for i, n in used], [right[i] / n for i, n in used]

    def draw(figure: Any) -> None:
        grid = figure.add_gridspec(2, 1, height_ratios=(3, 1))
        axes = axes_in(figure, "", "share that is right", grid[0])
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1.2, label="well calibrated")
        axes.plot(xs, ys, color=SERIES[0], marker="o", markersize=5, linewidth=1.3, label="this model")
        below = axes_in(figure, "confidence", "share", grid[1])
        shares = [100 * count / sum(n for _, n in used) for _, count in used]
        below.bar([(i + 0.5) / BINS for i, _ in used], shares, width=0.9 / BINS, color=SERIES[0], alpha=0.6)
        below.set(xlim=(-0.02, 1.02), ylabel="rows, %")
        below.yaxis.get_major_locator().set_params(nbins=2)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.04, 1.04))
        axes.tick_params(labelbottom=False)
        legend_of(figure)

    error = scored.reliability.error() if stored is None else stored
    path = ("predictions", split, "ece") if stored is None else ("results", "calibration", "before", "ece")
    every = "decisions on a row and label" if scored.kind == "labels" else "rows"
    says = f"Reliability diagram: expected calibration error {rounded(error)}"
    caption = (
        f"How often the model is right beside how sure it is, in {BINS} bins of confidence, and the share of "
        f"{every} in each. Expected calibration error {number(error, *path)}; points below the line are too sure."
    )
    return figure(picture(f"reliability-{place}", says, draw, 3.6), caption)


def threshold_curve(split: str, scored: ScoredSplit, place: int) -> str:
    """Precision, recall and F1 by threshold: of the positive class, or of all decisions together."""
    if scored.thresholds is None:
        return ""
    curves = scored.thresholds.curves()
    best = max(range(len(curves["f1"])), key=lambda i: (curves["f1"][i], -abs(curves["threshold"][i] - 0.5)))

    def draw(figure: Any) -> None:
        axes = axes_in(figure, "threshold", "value")
        for series, key in enumerate(("precision", "recall", "f1")):
            style = {"color": SERIES[series], "linestyle": DASHES[series], "label": key}
            axes.plot(curves["threshold"], curves[key], **style)
        axes.axvline(curves["threshold"][best], color=INK, linestyle=":", linewidth=1.2)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.04, 1.04))
        legend_of(figure)

    about = (
        f"the class {name(scored.names[scored.positive])}" if scored.positive is not None else "all labels together"
    )
    top, at = (
        number(curves[key][best], "predictions", split, "best threshold", key) for key in ("f1", "threshold")
    )
    half = number(curves["f1"][len(curves["f1"]) // 2], "predictions", split, "f1 at one half")
    caption = (
        f"Precision, recall and F1 of {about} by the threshold of the probability. Highest F1 {top} at {at} "
        f"(dotted), {half} at one half. Chosen on these rows, a threshold looks better than it is on others."
    )
    says = f"Threshold curve: highest F1 {rounded(curves['f1'][best])}"
    return figure(picture(f"thresholds-{place}", says, draw), caption)


def scatter(split: str, scored: ScoredSplit, place: int) -> str:
    """Predictions beside labels, of at most `DOTS` rows at equal distances."""
    pairs = scored.pairs[:: -(-len(scored.pairs) // DOTS)]

    def draw(figure: Any) -> None:
        axes = axes_in(figure, "label", "prediction")
        low, high = (end(map(end, pairs)) for end in (min, max))
        axes.plot([low, high], [low, high], color=FAINT, linestyle="--", linewidth=1.3, label="right")
        style = {"marker": "o", "markersize": 3, "linestyle": "", "alpha": 0.5}
        axes.plot(*zip(*pairs, strict=True), color=SERIES[0], label="rows", **style)
        legend_of(figure)

    shown = number(len(pairs), "predictions", split, "dots")
    says = f"Predictions beside labels of {len(pairs)} rows"
    caption = f"Predictions beside labels: {shown} of {number(scored.rows, 'predictions', split, 'rows')} rows."
    return figure(picture(f"scatter-{place}", says, draw), caption)


def residuals(split: str, scored: ScoredSplit, place: int) -> str:
    """How far predictions are from labels."""
    errors = [prediction - label for label, prediction in scored.pairs]
    mean = sum(errors) / len(errors)

    def draw(figure: Any) -> None:
        axes = axes_in(figure, "prediction - label", "rows")
        axes.hist(errors, bins=30, color=SERIES[0], alpha=0.6)
        axes.axvline(0, color=INK, linestyle=":", linewidth=1.5)

    says = f"Residuals: their mean is {rounded(mean)}"
    caption = (
        f"Residuals: prediction less label, {number(mean, 'predictions', split, 'mean residual')} in the mean."
    )
    return figure(picture(f"residuals-{place}", says, draw), caption)
