"""What a run says before its first step and after its last, for a person at a terminal."""

from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Splits
from minitrain.data.labels.ids import display_names
from minitrain.data.labels.notes import in_table
from minitrain.data.load import unknown_warning
from minitrain.data.sampler import padding_share, rank_micro_batches
from minitrain.data.targets import TargetScale
from minitrain.kernels.matmul import onednn_supports
from minitrain.model.loading import LoadReport
from minitrain.run.report import class_block, duration, metric_name, result_lines
from minitrain.training.best import Best
from minitrain.training.evaluation import Evaluation
from minitrain.training.plan import make_sampler, plan

MANY_CUT = 0.1  # of the texts: more is worth a word


def header(
    config: TrainConfig,
    device: torch.device,
    splits: Splits,
    report: LoadReport,
    processes: int = 1,
    scale: TargetScale | None = None,
) -> list[str]:
    """What there is to know before the first step."""
    train, steps = splits.train, plan(config, len(splits.train), processes)
    size = config.per_device_train_batch_size
    with torch.random.fork_rng(devices=()):  # the order may come from the random stream, which is not ours to move
        some = make_sampler(config, train, processes).batches(0)[:1000]
    padding = padding_share(train.lengths, [batch for rows in some for batch in rank_micro_batches(rows, size)])
    parts = [f"{size} each"] if processes * config.gradient_accumulation_steps > 1 else []
    parts += [f"{config.gradient_accumulation_steps} passes"] if config.gradient_accumulation_steps > 1 else []
    parts += [f"{processes} processes"] if processes > 1 else []
    batch = size * config.gradient_accumulation_steps * processes
    cut_up = f" ({' x '.join(parts)})" if parts else ""
    return [
        f"minitrain {version('minitrain')}  torch {torch.__version__}  {device}, {torch.get_num_threads()} threads"
        f"  {'bf16' if config.bf16 else 'fp32'}, {config.kernels} kernels  "
        + ("1 process" if processes == 1 else f"{processes} processes"),
        *_slow_arithmetic(config, device),
        "data     " + ", ".join(f"{name} {len(split)}" for name, split in splits.all.items()),
        *(f"         {note}" for note in splits.notes),
        "labels   " + _label_counts(splits),
        *_targets(scale),
        *_lengths(splits, f"{padding:.1%} padding ({config.sampler} sampler)"),
        f"weights  {config.model}: {report.line()}",
        f"plan     {steps.total_steps} steps of {batch} examples{cut_up}, {steps.steps_per_epoch} an epoch, "
        f"{steps.warmup_steps} of warm-up; seed {config.seed}",
        "",
    ]


def _lengths(splits: Splits, padding: str) -> list[str]:
    """How long the texts are, and what of them the model does not get to see."""
    sizes, ordered = splits.all, sorted(splits.train.lengths)
    rows = sum(len(split) for split in sizes.values())
    truncated = sum(split.truncated for split in sizes.values())
    blank = sum(split.blank for split in sizes.values())
    counts = {name: (split.unknown, split.text_tokens) for name, split in sizes.items()}
    unknown = sum(count for count, _ in counts.values()) / max(1, sum(tokens for _, tokens in counts.values()))
    cut = f"{truncated / rows:.1%} truncated, {unknown:.1%} unknown"
    lines = [
        f"lengths  median {ordered[len(ordered) // 2]}, 95% within {ordered[int(len(ordered) * 0.95)]} tokens; "
        f"{cut}{f', {blank} with a blank text' if blank else ''}; {padding}"
    ]
    if truncated > MANY_CUT * rows:
        lines.append(
            f"         {truncated} of {rows} texts are longer than {ordered[-1]} tokens, and what stands behind "
            "the cut is not read: put what matters first, or pass texts in parts"
        )
    warning = unknown_warning(counts)
    return lines if warning is None else [*lines, f"         {warning}"]


def _slow_arithmetic(config: TrainConfig, device: torch.device) -> list[str]:
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
    counts = Counter(labels.tolist())
    shown = ", ".join(f"{in_table(name)} {counts[i]}" for i, name in enumerate(display_names(names)[:10]))
    more = f", and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{shown}{more}; majority {max(counts.values()) / len(labels):.1%}"


def footer(
    directory: Path, splits: Splits, best: Best, final: Mapping[str, Evaluation], results: Mapping[str, Any]
) -> list[str]:
    """What came of it, and what to type next."""
    lines = [""]
    for name, result in final.items():
        lines += result_lines(name, result, results["baseline"][name], splits.labels.positive_label)
        if splits.labels.names is not None and len(splits.labels.names) <= 20:
            lines += [*class_block(result, splits.labels.names), ""]
    if best.value is not None:
        kept = bool(best.weights) or best.step == results["steps"]
        saved = "that is saved" if kept else "the last step is saved (--load_best_model_at_end keeps the best)"
        name = metric_name(best.name, splits.labels.positive_label)
        lines += [
            *([""] if lines[-1] else []),
            f"best {name} {best.value:.4f} at epoch {best.epoch:.2f}; {saved}",
        ]
    sample = "'a text<TAB>and another'" if splits.is_pair else "'a text'"
    pair = '{"text": "a text", "text_pair": "and another"}' if splits.is_pair else '"a text"'
    return [
        *lines,
        f"trained in {duration(results['training_seconds'])}, "
        f"{duration(results['total_seconds'])} in all, peak memory {results['peak_memory_mb']:.0f} MB",
        f"saved to {directory}",
        "",
        f"  printf {sample.replace('<TAB>', chr(92) + 't')} | python scripts/predict.py {directory}",
        f"  python -c 'from transformers import pipeline; "
        f'print(pipeline("text-classification", "{directory}")({pair}))\'',
    ]
