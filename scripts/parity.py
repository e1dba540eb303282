"""minitrain beside transformers' Trainer, float by float: `python scripts/parity.py --model demo --dataset demo`.

Takes every flag of `train.py`. Each side trains in its own process on the same rows with the same settings and
records every loss, gradient norm, learning rate, evaluation and prediction; then the records are compared bit for
bit. `--match_accelerate` compares with the loop of accelerate's example. `--layers` instead runs one step of both
models and names the first operation that differs. Exits with 1 if anything differs.
"""

import sys
from dataclasses import dataclass

from references import check_libraries

from minitrain.config.freezing import has_layer_rates
from minitrain.config.options import flag
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run.flags import command


@dataclass(frozen=True, kw_only=True)
class ParityConfig(TrainConfig):
    """The settings of a run, and of the comparison."""

    json: str | None = flag(None, "write the comparison to this file too")
    threads: int = flag(1, "threads of each side; both sides run at the same time")
    layers: bool = flag(False, "name the first operation of a training step that differs, forward and backward")

    def __post_init__(self) -> None:
        if not self.match_accelerate:
            object.__setattr__(self, "match_trainer", True)
        if self.do_eval is None:
            object.__setattr__(self, "do_eval", True)  # predictions are compared in any case
        super().__post_init__()
        if self.threads < 1:
            raise MinitrainError(f"--threads is {self.threads}; expected 1 or more")
        if self.load_best_model_at_end or self.early_stopping_patience is not None:
            raise MinitrainError(
                "parity.py compares all steps and the last weights: drop --load_best_model_at_end and "
                "--early_stopping_patience, which change neither"
            )
        if self.match_accelerate and (self.eval_strategy == "steps" or self.num_train_epochs % 1):
            raise MinitrainError(
                "--match_accelerate: the example evaluates after whole epochs; pass --eval_strategy epoch or no, "
                "and whole --num_train_epochs (or --max_steps)"
            )
        weighted = self.class_weights is not None
        plain = not self.label_smoothing_factor and self.gradient_accumulation_steps == 1 and not weighted
        plain = plain and self.freeze is None and not has_layer_rates(self)
        if self.layers and (self.match_accelerate or not plain):
            raise MinitrainError(
                "--layers walks through one pass of Trainer's model and its own loss: drop --match_accelerate, "
                "--label_smoothing_factor, --class_weights, --gradient_accumulation_steps, --freeze and the "
                "rates by layer"
            )


def compare(config: ParityConfig) -> None:
    """Compare, print and write; exit with 1 if anything differs."""
    check_libraries()
    from references import layers, side_by_side  # import torch, which --help does not need

    if not (layers.walk if config.layers else side_by_side.run)(config, config.threads, config.json):
        sys.exit(1)


if __name__ == "__main__":
    command(ParityConfig, compare, "Compare a run with transformers' Trainer, bit for bit.")
