"""From the course's hand loop to Trainer, a rung at a time: `python scripts/ladder.py --model demo --dataset demo`.

Each rung changes one thing about the loop of the rung before, as a flag of `train.py`, and shows how far its losses
lie from those of transformers' Trainer on the same rows. On the last rung every loss is Trainer's, bit for bit.
"""

import sys
from dataclasses import dataclass

from compare import check_libraries

from minitrain.config.options import flag
from minitrain.run.flags import command


@dataclass(frozen=True, kw_only=True)
class LadderConfig:
    """What to climb on."""

    model: str = flag("google-bert/bert-base-uncased", "Hub id, local folder, or 'demo'")
    dataset: str | None = flag(None, "Hub id, local folder, or 'demo'; nyu-mll/glue if none")
    subset: str | None = flag(None, "configuration of the dataset; mrpc of nyu-mll/glue")
    examples: int = flag(160, "training rows of each of the two epochs, 8 a step")
    json: str | None = flag(None, "write the rungs to this file too")


def climb(config: LadderConfig) -> None:
    """Climb, print, write; exit with 1 where the last rung is not Trainer's run."""
    check_libraries()
    from compare import rungs  # torch and transformers come with it: --help answers without

    if not rungs.climb(config.model, config.dataset, config.subset, config.examples, config.json):
        sys.exit(1)


if __name__ == "__main__":
    command(LadderConfig, climb, "Change the course's loop into Trainer's, one thing at a time.")
