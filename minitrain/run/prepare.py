"""Everything that a run needs before its first step, found and checked; nothing is written."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minitrain.config.report_to import trackers_of
from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Splits
from minitrain.data.load import length_limit, tokenize_splits
from minitrain.data.splits import TextSplits, choose_splits, read_tables, tables_of_data, with_default_data
from minitrain.data.targets import TargetScale
from minitrain.data.tokenizer.tokenizer import Tokenizer, load_tokenizer
from minitrain.distributed.device import choose_device
from minitrain.distributed.world import World
from minitrain.errors import MinitrainError
from minitrain.kernels.compile import check_compilable
from minitrain.kernels.precision import check_precision
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.freezing import freeze_layers
from minitrain.model.weights import load_classifier, read_config, trained_labels
from minitrain.run.calibration import check_calibratable
from minitrain.run.load_data import SplitsSource
from minitrain.run.push import check_push_of
from minitrain.run.run_folder import output_directory, output_path
from minitrain.storage.download import commit_of
from minitrain.storage.hub import resolve_model
from minitrain.storage.safetensors_io import weight_files
from minitrain.training.evaluation import check_token_types
from minitrain.training.kept_activations import check_keepable
from minitrain.training.loss import Loss
from minitrain.training.metrics import Metric, metric_for
from minitrain.training.run_loss import loss_of_run
from minitrain.training.setup import best_by, with_per_device_batch_size
from minitrain.training.user_metrics import UserMetrics

LIBRARIES = ("torch", "tokenizers", "datasets", "safetensors", "huggingface-hub")


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A run before its first step."""

    config: TrainConfig
    directory: Path
    device: torch.device
    tokenizer: Tokenizer
    model: SequenceClassifier
    splits: Splits
    max_length: int
    scale: TargetScale | None  # mean and standard deviation of standardized regression targets
    model_commit: str | None  # of a model from the Hub
    loss: Loss
    user_metrics: UserMetrics | None = None

    def new_metric(self) -> Metric:
        """A fresh metric: `--metrics`, or the GLUE task's, or those that suit the labels; and the user's."""
        labels = self.splits.labels
        metric = metric_for(
            self.splits.task, labels.num_classes, labels.positive, self.config.metrics, labels.multi_label
        )
        metric.user_metrics = self.user_metrics
        return metric


def complete(config: TrainConfig, world: World, data: Any = None) -> TrainConfig:
    """The configuration with the default dataset and the batch size of one process filled in."""
    return with_per_device_batch_size(config if data is not None else with_default_data(config), world.size)


def prepare(
    config: TrainConfig,
    world: World | None = None,
    prefetcher: SplitsSource | None = None,
    data: Any = None,
    loss: Callable[[Tensor, Tensor], Any] | None = None,
    user_metrics: UserMetrics | None = None,
) -> PreparedRun:
    """Load and check the model, the tokenizer and the data, the cheapest checks first.

    Args:
        world: The processes that train together. The first of each node downloads for the others.
        prefetcher: A process that is already reading the data.
        data, loss: Data in memory and a loss function, as for `train`.

    Raises MinitrainError naming the flag, file, row or key at fault.
    """
    world = world or World()
    config = complete(config, world, data)
    device = _checked_device(config, world)
    if world.is_main:
        trackers_of(config.report_to)  # raises for one that is not installed
    directory = output_directory(config) if world.is_main else output_path(config)
    if world.is_main:
        check_push_of(config)
    with world.local_main_first("data"):
        source = resolve_model(config.model, config.model_revision)
        tokenizer, max_length, splits = load_data(config, source, prefetcher, data)
    check_calibratable(config, splits)
    names = splits.labels.names
    if world.size > 1:
        own = {"compute_metrics": user_metrics is not None}
        world.check_agreement(_must_agree(config, source, splits) | own)
    minimized = loss_of_run(config, names, splits.train.labels, loss)
    run = PreparedRun(
        config=config,
        directory=directory,
        device=device,
        tokenizer=tokenizer,
        model=_load_model(config, source, splits).to(device),
        splits=splits,
        max_length=max_length,
        scale=splits.train.target_scale() if config.standardize_targets and names is None else None,
        model_commit=commit_of(source),
        loss=minimized,
        user_metrics=user_metrics,
    )
    best_by(config, run.new_metric())  # raises for an unknown --metric_for_best_model
    return run


def _load_model(config: TrainConfig, source: Path, splits: Splits) -> SequenceClassifier:
    torch.manual_seed(config.seed)  # for the new head
    model = load_classifier(
        source,
        splits.labels.num_labels,
        label_names=splits.labels.names,
        problem_type=splits.labels.problem_type,
        new_head=config.new_head,
        kernels=config.kernels,
        hidden_dropout_prob=config.hidden_dropout_prob,
        attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        classifier_dropout=config.classifier_dropout,
    )
    freeze_layers(model, config.freeze, bool(config.frozen_dropout))
    if config.keep_activations:
        check_keepable(model, [splits.train, *splits.evaluation.values()])
    return model


def _checked_device(config: TrainConfig, world: World) -> torch.device:
    """The device of a run. Raises MinitrainError if it cannot compute as the run asks."""
    device = choose_device(config.device, world)
    if config.dropout_rng == "example" and device.type != "cpu":
        raise MinitrainError(f"--dropout_rng example is for the CPU, not {device.type}")
    check_precision(config, device)
    if config.torch_compile:
        check_compilable(config.kernels, device)
    return device


def load_data(
    config: TrainConfig, source: Path, prefetcher: SplitsSource | None, data: Any = None
) -> tuple[Tokenizer, int, Splits]:
    """The tokenizer, the maximal length and the tokenized data for the checkpoint in the folder `source`."""
    encoder = read_config(source)
    weight_files(source)  # if both weights and tokenizer are missing, name the weights
    tokenizer = load_tokenizer(source)
    tokenizer.check_fits(encoder.vocab_size, source)
    max_length = length_limit(config.max_length, tokenizer, encoder.max_length, config.pad_to_multiple_of or 1)
    splits = prefetcher and prefetcher.splits(source, _known_labels(config, source), max_length)
    splits = splits or tokenize_splits(
        rows_of(config, source, data), tokenizer, max_length, config.long_text_options
    )
    for split in splits.all.values():
        check_token_types(encoder, split, source)
    return tokenizer, max_length, splits


def rows_of(config: TrainConfig, source: Path, data: Any = None) -> TextSplits:
    """The texts and labels of a run, before tokenization.

    Args:
        source: The checkpoint's folder; its trained head, if any, decides the order of the classes.
        data: Data in memory, as for `train`.

    Raises:
        MinitrainError: Names the flag, file, row or column at fault, or evaluation data is missing.
    """
    tables = read_tables(with_default_data(config)) if data is None else tables_of_data(config, data)
    return choose_splits(config, tables, _known_labels(config, source))


def _known_labels(config: TrainConfig, source: Path) -> tuple[str, ...] | None:
    return None if config.new_head else trained_labels(source)


def _must_agree(config: TrainConfig, source: Path, splits: Splits) -> dict[str, object]:
    """What all processes must have in common, under names that tell a user where to look."""
    flags = {f"--{name}": value for name, value in asdict(config).items() if name != "output_dir"}
    data = {f"the {name} data (checksum)": split.checksum() for name, split in splits.all.items()}
    versions = {f"{name} (version)": version(name) for name in ("minitrain", *LIBRARIES)}
    return {**versions, **flags, "the model's commit": commit_of(source), **data}
