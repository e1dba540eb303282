"""The page: a sentence with the result, curves, data, every scored split, and how to repeat the run."""

from collections.abc import Sequence

from minitrain.run.html import figures as pictures
from minitrain.run.html import split_figures
from minitrain.run.html.facts import Facts
from minitrain.run.html.markup import figures, name, number, section, table, text
from minitrain.run.html.reproduce import reproduction
from minitrain.run.html.scored import ScoredSplit
from minitrain.run.html.style import CSS
from minitrain.run.html.tables import (
    baseline_of,
    calibration_table,
    class_table,
    confusion_table,
    data_table,
    interval_of,
    label_table,
    metrics_table,
    text_list,
    titled,
)
from minitrain.run.report import duration

# Nothing is fetched, no script runs, even if a text were to slip through as markup.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def page(facts: Facts) -> str:
    """The HTML of a report."""
    title = facts.directory.resolve().name
    body = several_runs(facts) if facts.is_several else one_run(facts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}: report of a training run</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{name(title, 200)}</h1>\n{body}</main>\n</body>\n</html>\n"
    )


def one_run(facts: Facts) -> str:
    """The body for a single run."""
    splits = [
        _split(facts, split, facts.scored.get(split), place) for place, split in enumerate(facts.results["results"])
    ]
    return "".join(
        [
            f'<p class="lead">{headline(facts)}</p>\n',
            section("Training", figures(*_curves(facts)) or '<p class="note">There is no log.jsonl.</p>\n'),
            section("Data", figures(pictures.lengths(facts)), data_table(facts)),
            *splits,
            section("Calibration", calibration_table(facts)),
            section("The run", _run_table(facts)),
            reproduction(facts),
        ]
    )


def headline(facts: Facts) -> str:
    """The result in a sentence: the value with its interval, the baseline, the best epoch."""
    results = facts.results["results"]
    if not results:
        return "This run was trained without an evaluation: it has no result to show."
    split = "test" if "test" in results else next(iter(results))
    values = {key: value for key, value in results[split].items() if key not in ("examples", "loss")}
    metric = next(iter(values), "loss")
    examples = number(results[split]["examples"], "results", "results", split, "examples")
    value = number(results[split][metric], "results", "results", split, metric)
    sentence = f"On {examples} {name(split)} examples {titled(metric, facts.positive)} is {value}"
    if between := interval_of(facts, split, metric):
        sentence += f" (95% interval {between})"
    if constant := baseline_of(facts, split, metric):
        sentence += f"; the best constant prediction gets {constant}"
    return f"<strong>{sentence}.</strong>{_best(facts)}"


def _best(facts: Facts) -> str:
    best = facts.results.get("best") or {}
    metric = next((key for key in best if key not in ("step", "epoch")), None)
    if metric is None or best[metric] is None:
        return " No evaluation during the training chose a best epoch."
    value = number(best[metric], "results", "best", metric)
    epoch = number(best["epoch"], "results", "best", "epoch", form=".2f")
    step = number(best["step"], "results", "best", "step")
    last = facts.results.get("saved") != "best" and best["step"] != facts.results.get("steps")
    saved = "the weights of the last step are saved" if last else "these weights are saved"
    where = "".join(f" of {name(split)}" for split in list(facts.log.evaluations)[:1])
    return f" The best evaluation{where} is that of epoch {epoch} (step {step}), {name(metric)} {value}; {saved}."


def _run_table(facts: Facts) -> str:
    results, config = facts.results, facts.config
    data = " ".join(filter(None, (str(results.get("dataset") or "in memory"), results.get("subset"))))
    rows = [("model", name(config.get("model", "?"), 200)), ("data", name(data, 200))]
    for key, what in (("steps", "optimizer steps"), ("global_batch", "examples a step"), ("epochs", "epochs")):
        if results.get(key) is not None:
            rows.append((what, number(results[key], "results", key, form=".2f" if key == "epochs" else None)))
    for key in ("learning_rate", "seed"):
        if config.get(key) is not None:
            rows.append((key.replace("_", " "), number(config[key], "results", "config", key)))
    if (count := (results.get("parameters") or {}).get("trained")) is not None:
        rows.append(("trained parameters", number(count, "results", "parameters", "trained")))
    for key, what in (("training_seconds", "time of training"), ("total_seconds", "time in all")):
        if results.get(key) is not None:
            seconds = number(results[key], "results", key, form=".1f")
            rows.append((what, f"{seconds} s" + (f" ({duration(results[key])})" if results[key] >= 60 else "")))
    if results.get("peak_memory_mb") is not None:
        rows.append(
            ("peak memory", f"{number(results['peak_memory_mb'], 'results', 'peak_memory_mb', form='.0f')} MB")
        )
    return table(("what", "value"), rows, "Model, data, settings and cost", "words")


def _curves(facts: Facts) -> Sequence[str]:
    drawn = [pictures.loss_curve(facts), *pictures.metric_curves(facts)]
    return [*drawn, pictures.learning_rate(facts), pictures.gradient_norm(facts)]


def _split(facts: Facts, split: str, scored: ScoredSplit | None, place: int) -> str:
    count = number(facts.results["results"][split]["examples"], "results", "results", split, "examples")
    return section(
        f"{name(split)}: {count} examples", metrics_table(facts, split), _scored(facts, split, scored, place)
    )


def _scored(facts: Facts, split: str, scored: ScoredSplit | None, place: int) -> str:
    """What the predictions of a split show."""
    if scored is None:
        return '<p class="note">There are no predictions of this split in predictions.jsonl.</p>\n'
    if scored.kind == "scores":
        drawn = figures(split_figures.scatter(split, scored, place), split_figures.residuals(split, scored, place))
        return drawn + section("Largest errors", text_list(split, "errors", scored.errors.rows()), level=3)
    fitted = facts.results.get("calibration") or {}
    stored = fitted["before"]["ece"] if fitted.get("split") == split else None
    tables = [label_table(facts, split)]
    if scored.confusion is not None:
        tables = [confusion_table(split, scored), class_table(split, scored)]
    pair = [
        split_figures.reliability(split, scored, place, stored),
        split_figures.threshold_curve(split, scored, place),
    ]
    none = '<p class="note">No row is wrong.</p>\n'
    errors = text_list(split, "errors", scored.errors.rows()) or none
    return "".join(
        [
            *tables,
            section("Calibration and thresholds", figures(*pair), level=3),
            section("Most confident errors", errors, level=3),
            section("Least certain texts", text_list(split, "uncertain", scored.uncertain.rows()), level=3),
        ]
    )


def several_runs(facts: Facts) -> str:
    """The body for the runs of --folds and --seeds: means, curves beside each other, out-of-fold predictions."""
    results, runs = facts.results["results"], facts.results["runs"]
    split = next(iter(results))
    metric = next((key for key in results[split] if key != "loss"), "loss")
    lead = (
        f"<strong>{titled(metric, facts.positive)} is {_spread(facts, split, metric)} on {name(split)} "
        f"(mean ± standard deviation of {len(runs)} runs).</strong>"
    )
    parts = [f'<p class="lead">{lead}</p>\n', *(_runs_table(facts, split) for split in results)]
    parts.append(section("Training", figures(*_curves_of_runs(facts, metric))))
    for place, (split, scored) in enumerate(facts.scored.items()):
        count = number(scored.rows, "predictions", split, "rows")
        parts.append(section(f"Out-of-fold predictions: {count} rows", _scored(facts, split, scored, place)))
    return "".join([*parts, reproduction(facts)])


def _spread(facts: Facts, split: str, metric: str) -> str:
    found, path = facts.results["results"][split][metric], ("results", "results", split, metric)
    sd = "" if found["sd"] is None else f" ± {number(found['sd'], *path, 'sd')}"
    return f"{number(found['mean'], *path, 'mean')}{sd}"


def _runs_table(facts: Facts, split: str) -> str:
    runs = facts.results["runs"]
    rows = []
    for metric in facts.results["results"][split]:
        each = [
            number(run["results"][split][metric], "results", "runs", place, "results", split, metric)
            for place, run in enumerate(runs)
        ]
        rows.append((titled(metric, facts.positive), _spread(facts, split, metric), *each))
    heads = ("metric", "mean ± sd", *(name(run["name"]) for run in runs))
    return table(heads, rows, f"Metrics of {name(split)} in each run")


def _curves_of_runs(facts: Facts, metric: str) -> list[str]:
    logs = facts.logs_of_runs
    return [
        pictures.overlaid(logs, None),
        pictures.overlaid(logs, metric),
    ]
