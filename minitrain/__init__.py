"""Fine-tune BERT-style encoders in plain PyTorch.

The names below are all that a training loop written by hand needs. They are imported when first used, so that
`import minitrain` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minitrain.batching import BucketBatchSampler as BucketBatchSampler
    from minitrain.batching import RandomBatchSampler as RandomBatchSampler
    from minitrain.batching import share as share
    from minitrain.clipping import clip_grad_norm as clip_grad_norm
    from minitrain.collating import Batch as Batch
    from minitrain.collating import collate as collate
    from minitrain.config import TrainConfig as TrainConfig
    from minitrain.data import load_splits as load_splits
    from minitrain.data import tokenize as tokenize
    from minitrain.distributed import World as World
    from minitrain.distributed import data_parallel as data_parallel
    from minitrain.distributed import process_group as process_group
    from minitrain.errors import MinitrainError as MinitrainError
    from minitrain.evaluation import evaluate as evaluate
    from minitrain.evaluation import predict as predict
    from minitrain.launcher import launch as launch
    from minitrain.loss import cross_entropy as cross_entropy
    from minitrain.loss import mean_squared_error as mean_squared_error
    from minitrain.metrics import GlueMetric as GlueMetric
    from minitrain.metrics import Metric as Metric
    from minitrain.metrics import accuracy as accuracy
    from minitrain.metrics import f1 as f1
    from minitrain.metrics import metric_for as metric_for
    from minitrain.model import Encoder as Encoder
    from minitrain.model import SequenceClassifier as SequenceClassifier
    from minitrain.optim import AdamW as AdamW
    from minitrain.param_groups import decay_groups as decay_groups
    from minitrain.run import train as train
    from minitrain.schedules import constant_schedule as constant_schedule
    from minitrain.schedules import cosine_schedule as cosine_schedule
    from minitrain.schedules import linear_schedule as linear_schedule
    from minitrain.tables import load_tables as load_tables
    from minitrain.tokenizer import Example as Example
    from minitrain.tokenizer import Tokenizer as Tokenizer
    from minitrain.tokenizer import load_tokenizer as load_tokenizer
    from minitrain.training import fit as fit
    from minitrain.weights import load_classifier as load_classifier
    from minitrain.weights import load_encoder as load_encoder
    from minitrain.weights import save_classifier as save_classifier

_HOMES = {
    "batching": ("BucketBatchSampler", "RandomBatchSampler", "share"),
    "clipping": ("clip_grad_norm",),
    "collating": ("Batch", "collate"),
    "config": ("TrainConfig",),
    "data": ("load_splits", "tokenize"),
    "distributed": ("World", "data_parallel", "process_group"),
    "errors": ("MinitrainError",),
    "evaluation": ("evaluate", "predict"),
    "launcher": ("launch",),
    "loss": ("cross_entropy", "mean_squared_error"),
    "metrics": ("GlueMetric", "Metric", "accuracy", "f1", "metric_for"),
    "model": ("Encoder", "SequenceClassifier"),
    "optim": ("AdamW",),
    "param_groups": ("decay_groups",),
    "run": ("train",),
    "schedules": ("constant_schedule", "cosine_schedule", "linear_schedule"),
    "tables": ("load_tables",),
    "tokenizer": ("Example", "Tokenizer", "load_tokenizer"),
    "training": ("fit",),
    "weights": ("load_classifier", "load_encoder", "save_classifier"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"minitrain has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"minitrain.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
