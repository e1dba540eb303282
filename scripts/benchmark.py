"""minitrain's speed beside transformers': `python scripts/benchmark.py --model demo --dataset demo`.

Each side runs alone in its own process, and the sides take turns in rounds, so that other load on the machine meets
all of them. A round gives one ratio of each kind; the medians are printed with the lowest and highest, and `--json`
writes them with all measurements. The sides: minitrain in fp32 and bf16 with its defaults; Trainer with its
defaults; Trainer with its fastest flags (bf16, fused AdamW, grouped by length); pipeline at its default batch size.
All train the same number of steps with the same batch size, and must reach the same loss.

`--device cuda` measures on a GPU. `--growth` measures minitrain alone on 4,000 to 1,000,000 examples, made by
repeating the rows of the dataset.
"""

from dataclasses import dataclass

from references import check_libraries

from minitrain.config.options import flag
from minitrain.errors import MinitrainError
from minitrain.run.flags import command


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What to measure on, and for how long."""

    model: str = flag("demo", "Hub id, local folder, or 'demo'")
    dataset: str = flag("demo", "Hub id, local folder, or 'demo'")
    subset: str | None = flag(None, "configuration of the dataset, e.g. mrpc")
    per_device_train_batch_size: int = flag(8, "examples per step")
    steps: int = flag(150, "optimizer steps of each side")
    warmup: int = flag(50, "steps that are not timed: the first ones compile")
    rounds: int = flag(3, "runs of each side")
    threads: int = flag(2, "threads of each side")
    device: str = flag("cpu", "where all sides compute", ("cpu", "cuda"))
    quick: bool = flag(False, "one round of 60 steps, 20 of them not timed: under ten minutes")
    fp32_only: bool = flag(False, "leave out bf16, for processors that emulate it slowly")
    growth: bool = flag(False, "minitrain alone, on 4,000, 40,000, 400,000 and 1,000,000 examples")
    json: str | None = flag(None, "write all measurements to this file too")

    def __post_init__(self) -> None:
        if self.quick:
            for name, value in {"steps": 60, "warmup": 20, "rounds": 1}.items():
                object.__setattr__(self, name, value)
        for name in ("per_device_train_batch_size", "rounds", "threads"):
            if getattr(self, name) < 1:
                raise MinitrainError(f"--{name} is {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.warmup < self.steps - 1:
            raise MinitrainError(f"--warmup is {self.warmup}; expected 0 or more, and at most --steps minus 2")


def benchmark(config: BenchmarkConfig) -> None:
    """Measure, print and write. Raises MinitrainError if a side fails or reaches another loss."""
    check_libraries()
    from references import race  # imports torch, which --help does not need

    (race.run_growth if config.growth else race.run)(config)


if __name__ == "__main__":
    command(BenchmarkConfig, benchmark, "Compare minitrain's speed with transformers'.")
