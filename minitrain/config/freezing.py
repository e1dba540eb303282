"""The checks of the settings that give layers their own learning rates, or freeze them."""

from minitrain.config.optimization import OptimizationConfig
from minitrain.errors import MinitrainError, shown

EMBEDDINGS, ENCODER = FROZEN_PARTS = "embeddings", "encoder"


def check_freezing(config: OptimizationConfig) -> None:
    """Store `freeze` as text and decide `frozen_dropout`. Raises MinitrainError for settings that do not fit."""
    freeze = config.freeze if config.freeze is None else str(config.freeze)
    if freeze not in (None, *FROZEN_PARTS) and not (freeze.isdecimal() and int(freeze) > 0):
        raise MinitrainError(
            f"--freeze is {shown(freeze)}; expected embeddings, encoder, or how many of the lowest layers, as 4"
        )
    if config.keep_activations and freeze in (None, EMBEDDINGS):
        raise MinitrainError(
            "--keep_activations keeps the output of frozen layers: pass --freeze N or --freeze encoder too"
        )
    if config.keep_activations and config.long_texts == "windows":
        raise MinitrainError(
            "--keep_activations keeps no windows of long texts: leave it out, or --long_texts windows"
        )
    if config.keep_activations and config.frozen_dropout:
        raise MinitrainError(
            "--keep_activations computes the frozen layers once, without dropout: drop --frozen_dropout true, or "
            "--keep_activations"
        )
    if config.frozen_dropout is False and freeze is None:
        raise MinitrainError("--frozen_dropout false is about frozen layers: pass --freeze too")
    object.__setattr__(config, "freeze", freeze)
    if config.frozen_dropout is None:
        object.__setattr__(config, "frozen_dropout", not config.keep_activations)


def has_layer_rates(config: OptimizationConfig) -> bool:
    """Whether some layers learn at another rate than `learning_rate`."""
    return config.layerwise_lr_decay != 1.0 or config.head_learning_rate is not None
