"""The lines of a run's header about layers: what is frozen and kept, and the learning rate of each layer."""

from collections.abc import Sequence

from minitrain.config.freezing import EMBEDDINGS, has_layer_rates
from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Split
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.freezing import count_parameters, frozen_level
from minitrain.storage.scratch import place
from minitrain.training.kept_activations import bytes_to_keep
from minitrain.training.layer_rates import level_rates


def layer_lines(config: TrainConfig, model: SequenceClassifier, splits: Sequence[Split]) -> list[str]:
    """Lines about frozen layers and rates; none for a run without either.

    Args:
        splits: Those whose hidden states `--keep_activations` keeps.
    """
    return [*_frozen(config, model, splits), *([_rates(config, model)] if has_layer_rates(config) else [])]


def _frozen(config: TrainConfig, model: SequenceClassifier, splits: Sequence[Split]) -> list[str]:
    if config.freeze is None:
        return []
    trained, every = count_parameters(model)
    level = frozen_level(model, config.freeze)
    layers = f"the {f'{level} ' if level > 1 else ''}lowest of {len(model.encoder.blocks)} layers"
    parts = "the embeddings" if config.freeze == EMBEDDINGS else f"the embeddings and {layers}"
    dropout = "" if config.frozen_dropout else ", without dropout"
    lines = [f"training {trained / 1e6:.1f} M of {every / 1e6:.1f} M parameters; frozen: {parts}{dropout}"]
    if config.keep_activations:
        size = bytes_to_keep(model, splits)
        width = model.config.hidden_size
        lines.append(
            f"keeping  {size / 1e9:.2f} GB of frozen layers' output in {place()}: {size // width // 4} positions x "
            f"{width} numbers of 4 bytes, in each process"
        )
    return lines


def _rates(config: TrainConfig, model: SequenceClassifier) -> str:
    """rates    embeddings 2.4e-05, layers 2.7e-05 2.9e-05 3.3e-05, head 5e-05"""
    embeddings, *layers, head = (f"{rate:.2g}" for rate in level_rates(model, config))
    frozen = -1 if config.freeze is None else frozen_level(model, config.freeze)
    lowest = [] if frozen >= 0 else [f"embeddings {embeddings}"]
    trained = layers[max(frozen, 0) :]
    middle = [f"layers {'(from the lowest) ' if len(trained) > 1 else ''}{' '.join(trained)}"] if trained else []
    return f"rates    {', '.join([*lowest, *middle, f'head {head}'])}"
