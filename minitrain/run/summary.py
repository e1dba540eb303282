"""What a run prints before its first step and after its last."""

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Splits
from minitrain.data.labels.ids import display_names
from minitrain.data.labels.notes import in_table
from minitrain.data.load import unknown_warning
from minitrain.data.sampler import padding_share
from minitrain.data.targets import TargetScale
from minitrain.kernels.matmul import onednn_supports
from minitrain.kernels.precision import precision_name
from minitrain.run.calibration import FittedCalibration
from minitrain.run.layer_lines import layer_lines
from minitrain.run.length_notes import counts_of, length_notes
from minitrain.run.memory import check_fits, estimate
from minitrain.run.prepare import PreparedRun
from minitrain.run.report import class_table, duration, metric_name, result_lines
from minitrain.run.run_folder import keeps_model
from minitrain.training.evaluation import Evaluation
from minitrain.training.run_loss import loss_line
from minitrain.training.setup import Best, first_micro_batches, global_batch, plan

MANY_TRUNCATED = 0.1  # share of the texts from which a warning is printed


def header(run: PreparedRun, processes: int = 1) -> list[str]:
    """What a user should know before the first step: the data, the weights, the plan, and warnings."""
    config, splits = run.config, run.splits
    return [
        f"minitrain {version('minitrain')}  torch {torch.__version__}  {run.device}, "
        f"{torch.get_num_threads()} threads  {precision_name(config)}, {config.kernels} kernels  "
        + ("1 process" if processes == 1 else f"{processes} processes"),
        *slow_bf16(config, run.device),
        "data     " + ", ".join(f"{name} {len(split)}" for name, split in splits.all.items()),
        *(f"         {note}" for note in splits.notes),
        "labels   " + _label_counts(splits),
        *([f"loss     {how}"] if (how := loss_line(run.loss, splits.labels.names)) else []),
        *_targets(run.scale),
        *_lengths(run, _padding(config, splits, processes)),
        f"weights  {config.model}: {run.model.load_report.line()}",
        *layer_lines(config, run.model, [splits.train, *splits.evaluation.values()]),
        f"plan     {_plan(config, len(splits.train), processes)}",
        *check_fits(estimate(run, processes), run, processes),
        "",
    ]


def _plan(config: TrainConfig, examples: int, processes: int) -> str:
    """9 steps of 16 examples (8 each x 2 passes), 9 an epoch, 3 of warm-up; seed 42"""
    steps, passes = plan(config, examples, processes), config.gradient_accumulation_steps
    factors = [f"{config.per_device_train_batch_size} each"] if passes * processes > 1 else []
    factors += [f"{passes} passes"] if passes > 1 else []
    factors += [f"{processes} processes"] if processes > 1 else []
    product = f" ({' x '.join(factors)})" if factors else ""
    return (
        f"{steps.total_steps} steps of {global_batch(config, processes)} examples{product}, "
        f"{steps.steps_per_epoch} an epoch, {steps.warmup_steps} of warm-up; seed {config.seed}"
    )


def _padding(config: TrainConfig, splits: Splits, processes: int) -> str:
    """The share of padding in the first 1,000 steps: 3.1% padding (bucket sampler)"""
    batches = first_micro_batches(config, splits.train, processes, 1000)
    windows = splits.train.window_rows
    most = f", up to {max(len(windows.of(batch)) for batch in batches)} windows a forward pass" if windows else ""
    return f"{padding_share(splits.train.lengths, batches, windows):.1%} padding ({config.sampler} sampler){most}"


def _lengths(run: PreparedRun, padding: str) -> list[str]:
    """Lengths in tokens, the shares of truncated texts and unknown tokens, and warnings about them."""
    splits, long_texts = run.splits, run.config.long_text_options
    every, ordered = splits.all.values(), sorted(splits.train.lengths)
    rows = sum(len(split) for split in every)
    truncated = sum(split.truncated for split in every)
    blank = sum(split.blank for split in every)
    unknown = sum(split.unknown for split in every) / max(1, sum(split.text_tokens for split in every))
    lines = [
        f"lengths  median {ordered[len(ordered) // 2]}, 95% within {ordered[int(len(ordered) * 0.95)]} tokens; "
        f"{truncated / rows:.1%} truncated, {unknown:.1%} unknown"
        f"{f', {blank} with a blank text' if blank else ''}; {padding}"
    ]
    notes = length_notes(counts_of(every), run.max_length, long_texts, run.tokenizer)
    if truncated > MANY_TRUNCATED * rows and splits.train.windows is None:
        others = [part for part in ("head", "tail", "head_tail") if part != long_texts.long_texts]
        other = f"{' and '.join(others)} read other parts" + ("" if splits.is_pair else ", windows all of it")
        notes.append(f"the model does not read the rest: --long_texts {other}")
    lines += [f"         {note}" for note in notes]
    warning = unknown_warning({name: (split.unknown, split.text_tokens) for name, split in splits.all.items()})
    return lines if warning is None else [*lines, f"         {warning}"]


def slow_bf16(config: TrainConfig, device: torch.device) -> list[str]:
    """A warning if the processor has no bfloat16."""
    if config.bf16 and device.type == "cpu" and not onednn_supports(torch.bfloat16):
        return ["         this processor has no bfloat16 and emulates it, far slower than fp32: leave out --bf16"]
    return []


def _targets(scale: TargetScale | None) -> list[str]:
    if scale is None:
        return []
    return [
        f"targets  standardized: mean {scale.mean:.6g}, sd {scale.sd:.6g}",
        "         the training loss is of standardized targets; evaluations and the saved model are not",
    ]


def _label_counts(splits: Splits) -> str:
    labels, names = splits.train.labels, splits.labels.names
    assert labels is not None
    if names is None:
        return f"scores from {labels.min():.2f} to {labels.max():.2f}, mean {labels.mean():.2f}"
    if labels.ndim == 2:
        return _several_label_counts(labels, names)
    counts = Counter(labels.tolist())
    shown = ", ".join(f"{in_table(name)} {counts[i]}" for i, name in enumerate(display_names(names)[:10]))
    more = f", and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{shown}{more}; majority {max(counts.values()) / len(labels):.1%}"


def _several_label_counts(labels: Tensor, names: Sequence[str]) -> str:
    """toxic 120, insult 30; 850 of 1000 rows without a label, 0.2 a row"""
    counts = labels.sum(dim=0).int().tolist()
    shown = ", ".join(f"{in_table(name)} {counts[i]}" for i, name in enumerate(display_names(names)[:10]))
    more = f", and {len(names) - 10} more" if len(names) > 10 else ""
    without = int((labels.sum(dim=1) == 0).sum())
    return f"{shown}{more}; {without} of {len(labels)} rows without a label, {sum(counts) / len(labels):.1f} a row"


def footer(
    run: PreparedRun,
    best: Best,
    final: Mapping[str, Evaluation],
    results: Mapping[str, Any],
    calibration: FittedCalibration | None = None,
    processes: int = 1,
) -> list[str]:
    """The final metrics, times, and commands to type next."""
    labels, directory = run.splits.labels, run.directory
    lines = [""]
    for name, result in final.items():
        lines += result_lines(name, result, results["baseline"][name], labels.positive_label)
        if labels.names is not None and len(labels.names) <= 20:
            lines += [*class_table(result, labels.names), ""]
    if calibration is not None:
        lines += [*([""] if lines[-1] else []), *calibration.lines()]
    if best.value is not None:
        kept = bool(best.weights) or best.step == results["steps"]
        saved = "that is saved" if kept else "the last step is saved (--load_best_model_at_end keeps the best)"
        name = metric_name(best.name, labels.positive_label)
        lines += [""] if lines[-1] else []
        lines += [f"best {name} {best.value:.4f} at epoch {best.epoch:.2f}; {saved}"]
    elif best.evaluations_since:
        lines += [f"WARNING  {best.name} was not a number in any evaluation: the last step is saved"]
    patience = run.config.early_stopping_patience
    left = plan(run.config, len(run.splits.train), processes).total_steps - results["steps"]
    if patience is not None and best.evaluations_since >= patience and left:
        lines += [f"ended by --early_stopping_patience {patience}: no better {best.name} in as many evaluations"]
    lines += [
        f"trained in {duration(results['training_seconds'])}, "
        f"{duration(results['total_seconds'])} in all, peak memory {results['peak_memory_mb']:.0f} MB"
    ]
    if not keeps_model(directory):
        return lines
    is_pair = run.splits.is_pair
    sample = r"'a text\tand another'" if is_pair else "'a text'"
    pair = '{"text": "a text", "text_pair": "and another"}' if is_pair else '"a text"'
    return [
        *lines,
        f"saved to {directory}",
        "",
        f"  printf {sample} | python scripts/predict.py {directory}",
        f"  python -c 'from transformers import pipeline; "
        f'print(pipeline("text-classification", "{directory}")({pair}))\'',
    ]
