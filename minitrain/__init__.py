"""Fine-tune BERT-style encoders in plain PyTorch.

The names below are all that a training loop written by hand needs. They are imported when first used, so that
`import minitrain` costs nothing. The folder that defines a name has it too: `from minitrain.data import collate`.
"""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minitrain.config.train_config import TrainConfig as TrainConfig
    from minitrain.data.batch import Batch as Batch
    from minitrain.data.batch import collate as collate
    from minitrain.data.load import load_splits as load_splits
    from minitrain.data.load import tokenize as tokenize
    from minitrain.data.sampler import BucketBatchSampler as BucketBatchSampler
    from minitrain.data.sampler import RandomBatchSampler as RandomBatchSampler
    from minitrain.data.sampler import rank_micro_batches as rank_micro_batches
    from minitrain.data.tables.load import load_tables as load_tables
    from minitrain.data.tokenizer.tokenizer import Example as Example
    from minitrain.data.tokenizer.tokenizer import Tokenizer as Tokenizer
    from minitrain.data.tokenizer.tokenizer import load_tokenizer as load_tokenizer
    from minitrain.distributed.launcher import launch as launch
    from minitrain.distributed.world import World as World
    from minitrain.distributed.world import ddp as ddp
    from minitrain.distributed.world import process_group as process_group
    from minitrain.errors import MinitrainError as MinitrainError
    from minitrain.model.classifier import Encoder as Encoder
    from minitrain.model.classifier import SequenceClassifier as SequenceClassifier
    from minitrain.model.weights import load_classifier as load_classifier
    from minitrain.model.weights import load_encoder as load_encoder
    from minitrain.model.weights import save_classifier as save_classifier
    from minitrain.run.main import train as train
    from minitrain.training.clipping import clip_grad_norm as clip_grad_norm
    from minitrain.training.evaluation import evaluate as evaluate
    from minitrain.training.evaluation import predict as predict
    from minitrain.training.loop import fit as fit
    from minitrain.training.loss import cross_entropy as cross_entropy
    from minitrain.training.loss import mean_squared_error as mean_squared_error
    from minitrain.training.metrics import GlueMetric as GlueMetric
    from minitrain.training.metrics import Metric as Metric
    from minitrain.training.metrics import accuracy as accuracy
    from minitrain.training.metrics import f1 as f1
    from minitrain.training.metrics import metric_for as metric_for
    from minitrain.training.optim import AdamW as AdamW
    from minitrain.training.param_groups import decay_groups as decay_groups
    from minitrain.training.schedules import constant_schedule as constant_schedule
    from minitrain.training.schedules import cosine_schedule as cosine_schedule
    from minitrain.training.schedules import linear_schedule as linear_schedule

    share = rank_micro_batches
    data_parallel = ddp

_PUBLIC = {
    "config.train_config": ("TrainConfig",),
    "data.batch": ("Batch", "collate"),
    "data.load": ("load_splits", "tokenize"),
    "data.sampler": ("BucketBatchSampler", "RandomBatchSampler", "rank_micro_batches"),
    "data.tables.load": ("load_tables",),
    "data.tokenizer.tokenizer": ("Example", "Tokenizer", "load_tokenizer"),
    "distributed.launcher": ("launch",),
    "distributed.world": ("World", "ddp", "process_group"),
    "errors": ("MinitrainError",),
    "model.classifier": ("Encoder", "SequenceClassifier"),
    "model.weights": ("load_classifier", "load_encoder", "save_classifier"),
    "run.main": ("train",),
    "training.clipping": ("clip_grad_norm",),
    "training.evaluation": ("evaluate", "predict"),
    "training.loop": ("fit",),
    "training.loss": ("cross_entropy", "mean_squared_error"),
    "training.metrics": ("GlueMetric", "Metric", "accuracy", "f1", "metric_for"),
    "training.optim": ("AdamW",),
    "training.param_groups": ("decay_groups",),
    "training.schedules": ("constant_schedule", "cosine_schedule", "linear_schedule"),
}
_ALIASES = {"share": "rank_micro_batches", "data_parallel": "ddp"}  # as version 0.1.0 calls them
_MODULE_OF = {name: f"minitrain.{module}" for module, names in _PUBLIC.items() for name in names}
__all__ = sorted([*_MODULE_OF, *_ALIASES])

# Modules of version 0.1.0 that lie in folders now: the public names can still be imported from them.
_FORMER = {
    f"minitrain.{name}"
    for name in (
        *("batching", "clipping", "collating", "evaluation", "launcher", "loss", "metrics", "optim"),
        *("param_groups", "schedules", "tables", "tokenizer", "weights"),
    )
}


def __getattr__(name: str) -> Any:
    return public_name(name, "minitrain")


def __dir__() -> list[str]:
    return __all__


def public_name(name: str, package: str) -> Any:
    """Import a public name that `package`, minitrain or a folder in it, defines. Raises AttributeError."""
    name = _ALIASES.get(name, name)
    names = [public for public, module in _MODULE_OF.items() if f"{module}.".startswith(f"{package}.")]
    if name not in names:
        raise AttributeError(f"{package} has no {name!r}; it has {', '.join(sorted(names))}")
    return getattr(import_module(_MODULE_OF[name]), name)


class _FormerModules(MetaPathFinder, Loader):
    """Makes `from minitrain.batching import collate` work as in version 0.1.0."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in _FORMER else None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = __getattr__  # type: ignore[method-assign]


sys.meta_path.append(_FormerModules())
