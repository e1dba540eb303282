"""The pictures of a report. Each function returns HTML, empty if there is nothing to draw."""

from collections.abc import Mapping, Sequence
from typing import Any

from minitrain.run.html.axes import axes_in, legend_of, log_scale, short, thinned
from minitrain.run.html.facts import Facts, Log
from minitrain.run.html.markup import attribute, counted, figure, name, number, rounded
from minitrain.run.html.svg import DASHES, INK, MARKERS, SERIES, picture

MOST_METRICS = 6
MOST_IN_LEGEND = 6  # runs


def end_of(facts: Facts) -> float | None:
    """The last epoch, so that all curves of a run have one axis."""
    return facts.results.get("epochs") or max(facts.log.steps["epoch"], default=None)


def loss_curve(facts: Facts) -> str:
    """The training loss, and that of the evaluations."""
    steps, evaluations = facts.log.steps, facts.log.evaluations
    xs, ys = thinned(steps["epoch"], steps["loss"])
    if not ys:
        return ""

    def draw(figure: Any) -> None:
        axes = axes_in(figure, "epoch", "loss", end=end_of(facts))
        axes.plot(xs, ys, color=SERIES[0], linewidth=1.3, label="training", marker="" if len(ys) > 1 else "o")
        for place, (split, records) in enumerate(list(evaluations.items())[:4], 1):
            _marked(axes, records, "loss", split, place)
        log_scale(axes, ys)
        legend_of(figure)

    lowest = min(ys)
    says = f"Training loss from {rounded(ys[0])} at the first logged step to {rounded(ys[-1])} at the last"
    caption = (
        f"Loss: {number(ys[0], 'log', 'loss', 0)} at first, {number(ys[-1], 'log', 'loss', -1)} at last, "
        f"lowest {number(lowest, 'log', 'loss', 'min')}. A point is the mean of the steps of a line of the log; "
        "marks are evaluations."
    )
    return figure(picture("loss", says, draw), caption)


def _marked(axes: Any, records: Sequence[Mapping[str, Any]], key: str, split: str, place: int) -> None:
    points = [(r["epoch"], r[key]) for r in records if r.get(key) is not None]
    if points:
        xs, ys = thinned([x for x, _ in points], [y for _, y in points])
        marks = {"marker": MARKERS[place], "markersize": 5 if len(xs) < 50 else 0, "linestyle": DASHES[place]}
        axes.plot(xs, ys, color=SERIES[place], linewidth=1.2, label=short(split), **marks)


def metric_curves(facts: Facts) -> list[str]:
    """One picture for each metric of the evaluations, the best one marked."""
    evaluations = facts.log.evaluations
    records = next(iter(evaluations.values()), [])
    metrics = [
        key for key in (records[0] if records else {}) if key not in ("event", "step", "epoch", "split", "loss")
    ]
    best = facts.results.get("best", {})
    return [
        _metric_curve(facts, metric, place, best if metric in best else {})
        for place, metric in enumerate(metrics[:MOST_METRICS])
    ]


def _metric_curve(facts: Facts, metric: str, place: int, best: Mapping[str, Any]) -> str:
    evaluations = facts.log.evaluations
    split, records = next(iter(evaluations.items()))
    values = [(r["epoch"], r[metric]) for r in records if r.get(metric) is not None]
    if not values:
        return ""

    def draw(figure: Any) -> None:
        axes = axes_in(figure, "epoch", short(metric), end=end_of(facts))
        for series, (split, records) in enumerate(list(evaluations.items())[:4], 1):
            _marked(axes, records, metric, split, series)
        if best.get(metric) is not None:
            star = {"marker": "*", "markersize": 13, "linestyle": "", "zorder": 5, "clip_on": False}
            axes.plot([best["epoch"]], [best[metric]], color=SERIES[0], label="best", **star)
        legend_of(figure)

    says = f"{metric} of the evaluations, {rounded(values[-1][1])} at the last"
    last = number(values[-1][1], "log", split, metric, -1)
    caption = f"{name(metric)} of {name(split)}: {last} at the last of {counted(len(records), 'evaluation')}"
    if best.get(metric) is not None:
        caption += (
            f", best {number(best[metric], 'results', 'best', metric)} at epoch "
            f"{number(best['epoch'], 'results', 'best', 'epoch', form='.2f')}"
        )
    return figure(picture(f"metric-{place}", says, draw), f"{caption}.")


def learning_rate(facts: Facts) -> str:
    """The learning rate."""
    xs, ys = thinned(facts.log.steps["epoch"], facts.log.steps["learning_rate"])
    if not ys:
        return ""

    def draw(figure: Any) -> None:
        axes = axes_in(figure, "epoch", "learning rate", end=end_of(facts))
        axes.plot(xs, ys, color=SERIES[0], linewidth=1.5, marker="" if len(ys) > 1 else "o")
        axes.set_ylim(bottom=0)

    peak = max(ys)
    schedule = facts.config.get("lr_scheduler_type", "")
    says = f"Learning rate: schedule {schedule}, peak {rounded(peak)}"
    caption = f"Learning rate: {schedule} schedule, highest logged {number(peak, 'log', 'learning_rate', 'max')}."
    return figure(picture("rate", says, draw), caption)


def gradient_norm(facts: Facts) -> str:
    """The gradient norm with the line where clipping starts."""
    steps, limit = facts.log.steps, facts.config.get("max_grad_norm") or 0
    xs, ys = thinned(steps["epoch"], steps["grad_norm"])
    if not ys:
        return ""

    def draw(figure: Any) -> None:
        axes = axes_in(figure, "epoch", "gradient norm", end=end_of(facts))
        axes.plot(xs, ys, color=SERIES[0], linewidth=1.1, label="norm", marker="" if len(ys) > 1 else "o")
        if limit:
            axes.axhline(limit, color=SERIES[1], linestyle="--", linewidth=1.5, label=f"clipped above {limit:g}")
        log_scale(axes, ys)
        legend_of(figure)

    over = sum(norm > limit for norm in steps["grad_norm"])
    means = f"{number(over, 'log', 'above', 'max_grad_norm')} of {number(len(steps['loss']), 'log', 'lines')}"
    clip = f"; clipped above {number(limit, 'results', 'config', 'max_grad_norm', form='g')} ({means} logged means)"
    says = f"Gradient norm, {rounded(ys[-1])} at the last logged step"
    caption = f"Gradient norm before clipping{clip if limit else ', without clipping'}."
    return figure(picture("gradient", says, draw), caption)


def lengths(facts: Facts) -> str:
    """Lengths in tokens of the training rows beside those of the other splits, and the limit."""
    data = {
        split: found for split, found in (facts.results.get("data") or {}).items() if found["lengths"]["counts"]
    }
    limit = facts.results.get("max_length")
    if not data:
        return ""
    longest = max(found["longest"] for found in data.values())
    shown_limit = limit if limit is not None and limit <= 1.5 * longest else None

    def draw(figure: Any) -> None:
        axes = axes_in(figure, "tokens", "share of rows, %")
        for place, (split, found) in enumerate(list(data.items())[:5]):
            counts, width = found["lengths"]["counts"], found["lengths"]["width"]
            edges = [i * width + 0.5 for i in range(len(counts) + 1)]
            shares = [100 * count / sum(counts) / width for count in counts]
            style = {"fill": place == 0, "alpha": 0.45 if place == 0 else 1, "linestyle": DASHES[place]}
            axes.stairs(shares, edges, color=SERIES[place], linewidth=1.4, label=short(split), **style)
        if shown_limit is not None:
            line = {"linestyle": ":", "linewidth": 2, "label": f"limit {shown_limit:,}"}
            axes.axvline(shown_limit + 0.5, color=INK, **line)
        axes.set_ylim(bottom=0)
        legend_of(figure)

    where = "" if shown_limit is not None else ", beyond the picture"
    shown = "" if limit is None else f"; the model reads {number(limit, 'results', 'max_length')} tokens{where}"
    says = f"Lengths of the texts: the longest has {longest} tokens as the model reads it"
    caption = f"Lengths in tokens, as the model reads them: share of the rows for each length{shown}."
    return figure(picture("lengths", says, draw), caption)


def overlaid(logs: Mapping[str, Log], metric: str | None) -> str:
    """A curve of each of several runs: a metric of the evaluations of their first split, or the training loss."""
    curves = {}
    for run, log in logs.items():
        if metric is None:
            curves[run] = thinned(log.steps["epoch"], log.steps["loss"])
        else:
            records = next(iter(log.evaluations.values()), [])
            points = [(r["epoch"], r[metric]) for r in records if r.get(metric) is not None]
            curves[run] = thinned([x for x, _ in points], [y for _, y in points])
    curves = {run: curve for run, curve in curves.items() if curve[0]}
    if not curves:
        return ""

    def draw(figure: Any) -> None:
        axes = axes_in(figure, "epoch", "loss" if metric is None else short(metric))
        for place, (run, (xs, ys)) in enumerate(curves.items()):
            style = {"linestyle": DASHES[place % 5], "marker": MARKERS[place % 5] if len(xs) < 10 else ""}
            axes.plot(xs, ys, color=SERIES[place % 5], linewidth=1.2, label=short(run), **style)
        if len(curves) <= MOST_IN_LEGEND:
            legend_of(figure)

    what = "Training loss" if metric is None else name(metric)
    caption = f"{what} of {counted(len(curves), 'run')}."
    return figure(picture(f"runs-{'loss' if metric is None else 'metric'}", attribute(caption), draw), caption)
