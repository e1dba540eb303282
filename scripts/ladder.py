"""From the course's training loop to Trainer: `python scripts/ladder.py --model demo --dataset demo`.

Each rung changes one setting of the rung before, given as a flag of `train.py`, and prints how far its losses are
from those of transformers' Trainer on the same rows. On the last rung every loss equals Trainer's, bit for bit.
"""

import sys
from dataclasses import dataclass

from references import check_libraries

from minitrain.config.options import flag
from minitrain.run.flags import command


@dataclass(frozen=True, kw_only=True)
class LadderConfig:
    """Model and data."""

    model: str = flag("google-bert/bert-base-uncased", "Hub id, local folder, or 'demo'")
    dataset: str | None = flag(None, "Hub id, local folder, or 'demo'; default: nyu-mll/glue")
    subset: str | None = flag(None, "configuration of the dataset; default for nyu-mll/glue: mrpc")
    examples: int = flag(160, "training rows; two epochs, 8 per step")
    json: str | None = flag(None, "write the rungs to this file too")


def climb(config: LadderConfig) -> None:
    """Train all rungs, print and write them; exit with 1 unless the last one equals Trainer."""
    check_libraries()
    from references import rungs  # imports torch, which --help does not need

    if not rungs.climb(config.model, config.dataset, config.subset, config.examples, config.json):
        sys.exit(1)


if __name__ == "__main__":
    command(LadderConfig, climb, "Turn the course's training loop into Trainer's, one setting at a time.")
