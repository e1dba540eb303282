"""Fine-tune an encoder: `python scripts/train.py --help`, or under torchrun."""

from minitrain.config import TrainConfig
from minitrain.flags import command
from minitrain.imports import uncollected


def train(config: TrainConfig) -> None:
    from minitrain.ahead import reading_ahead

    with reading_ahead(config) as ahead:
        with uncollected(for_good=True):
            from minitrain import run  # torch comes with it: --help and a mistyped flag answer without

        run.train(config, ahead)


if __name__ == "__main__":
    command(TrainConfig, train, "Fine-tune a BERT-style encoder for classification or regression.")
