"""Fine-tune an encoder: `python scripts/train.py --help`, or under torchrun."""

from minitrain.config.train_config import TrainConfig
from minitrain.data.gc_pause import gc_paused
from minitrain.run.flags import command


def train(config: TrainConfig) -> None:
    from minitrain.run.load_data import prefetching

    with prefetching(config) as prefetcher:
        with gc_paused(for_good=True):
            from minitrain.run import main as run  # imports torch, which --help does not need

        run.train(config, prefetcher)


if __name__ == "__main__":
    command(TrainConfig, train, "Fine-tune a BERT-style encoder for classification or regression.")
