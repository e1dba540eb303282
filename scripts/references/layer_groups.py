"""Frozen layers and rates by layer as a user of transformers writes them, from the names of its parameters."""

import re
from typing import Any

from transformers import Trainer

from minitrain.config.train_config import TrainConfig


def depth(name: str, layers: int) -> int:
    """0 for the embeddings, 1 to `layers` for the layers, `layers` + 1 for the head: pooler and classifier."""
    if found := re.search(r"\.layers?\.(\d+)\.", name):
        return int(found[1]) + 1
    if re.search(r"\.conv\.", name):  # DeBERTa's, after the first layer
        return 1
    if re.search(r"albert_layer_groups|final_norm", name):  # one group of shared weights; ModernBERT's last norm
        return layers
    if re.search(r"embeddings|relative_attention_bias|encoder\.(LayerNorm|embedding_hidden_mapping_in)", name):
        return 0
    return layers + 1


def freeze(model: Any, config: TrainConfig) -> None:
    """Freeze the parameters that `--freeze` names."""
    layers = _layers(model)
    if config.freeze is None:
        return
    highest = {"embeddings": 0, "encoder": layers}.get(str(config.freeze))
    for name, parameter in model.named_parameters():
        if depth(name, layers) <= (int(config.freeze) if highest is None else highest):
            parameter.requires_grad = False


def _layers(model: Any) -> int:
    numbers = [int(n) for name, _ in model.named_parameters() for n in re.findall(r"\.layers?\.(\d+)\.", name)]
    return max(numbers, default=0) + 1


class LayerRatesTrainer(Trainer):
    """Trainer with the learning rates of `settings`, by the hook that its documentation names."""

    settings: TrainConfig

    def create_optimizer(self, model: Any = None) -> Any:
        """One group for each layer and kind of decay; Trainer logs the rate of the first group, which is empty."""
        model = model or self.model
        layers, decaying = _layers(model), set(self.get_decay_parameter_names(model))
        groups: list[dict[str, Any]] = [{"params": [], "lr": self.settings.learning_rate}]
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            place = depth(name, layers)
            rate = self.settings.learning_rate * self.settings.layerwise_lr_decay ** (layers + 1 - place)
            if place == layers + 1 and self.settings.head_learning_rate is not None:
                rate = self.settings.head_learning_rate
            decay = self.settings.weight_decay if name in decaying else 0.0
            group = next((g for g in groups[1:] if (g["lr"], g["weight_decay"]) == (rate, decay)), None)
            if group is None:
                groups.append(group := {"params": [], "lr": rate, "weight_decay": decay})
            group["params"].append(parameter)
        kind, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
        self.optimizer = kind(groups, **settings)
        return self.optimizer
