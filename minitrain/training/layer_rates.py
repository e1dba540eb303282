"""A learning rate for each layer: lower layers, which hold what pretraining learned, move less than higher ones.

The rate of level i of `model/freezing.py` is learning_rate * layerwise_lr_decay ** (n + 1 - i): the head, level
n + 1, has the whole rate unless `--head_learning_rate` gives it another, the embeddings have the lowest. The
schedule scales all of them by one factor. Inside a level biases and norms stay exempt from weight decay.

Source: BEiT (Bao et al. 2021, arXiv 2106.08254), `optim_factory.py`; ELECTRA (Clark et al. 2020, arXiv 2003.10555)
does the same but skips one level below the head.
"""

from collections import defaultdict
from typing import Any

from torch import Tensor

from minitrain.config.freezing import has_layer_rates
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.freezing import head_level, levels
from minitrain.training.param_groups import decay_groups


def optimizer_groups(model: SequenceClassifier, config: TrainConfig) -> list[dict[str, Any]]:
    """AdamW's groups of all trainable parameters: by decay, and by level where levels have rates of their own.

    A group with a rate of its own has it as `base_lr`, which `Plan.rates` multiplies with the schedule.

    Raises:
        MinitrainError: Nothing is left to train.
    """
    groups = decay_groups(model, config.weight_decay)
    if config.decay_all:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [{"params": trained, "weight_decay": config.weight_decay}]
    if not any(group["params"] for group in groups):
        raise MinitrainError(
            "every parameter of the model is frozen: there is nothing to train; call requires_grad_(True) on some"
        )
    if not has_layer_rates(config):
        return groups
    level_of = {parameter: level for level, _, parameter in levels(model)}
    rates, split = level_rates(model, config), defaultdict[tuple[int, int], list[Tensor]](list)
    for number, group in enumerate(groups):
        for parameter in group["params"]:
            split[level_of[parameter], number].append(parameter)
    return [
        {"params": split[level, number], "weight_decay": groups[number]["weight_decay"], "base_lr": rates[level]}
        for level, number in sorted(split)
    ]


def level_rates(model: SequenceClassifier, config: TrainConfig) -> list[float]:
    """The peak learning rate of each level, the embeddings' first."""
    head, decay = head_level(model), config.layerwise_lr_decay
    rates = [config.learning_rate * decay ** (head - level) for level in range(head + 1)]
    if config.head_learning_rate is not None:
        rates[head] = config.head_learning_rate
    return rates
