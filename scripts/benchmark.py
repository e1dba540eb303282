"""minitrain's speed beside transformers': `python scripts/benchmark.py --model demo --dataset demo`.

Every side runs alone, as a process of its own, and the sides take turns, round after round, so that what else the
machine does hits all of them. Each round gives one ratio of each kind; the medians are printed with lowest and
highest, and `--json` writes them with everything measured. The sides: minitrain in fp32 and bf16, with its default
settings; Trainer with its defaults; Trainer with its fastest flags (bf16, fused AdamW, grouped by length); pipeline
at its default batch size. All train the same number of steps of the same size, and must come to the same loss.

`--device cuda` does the same on a GPU. `--growth` measures minitrain alone, on 4,000 to 1,000,000 examples made by
repeating the rows of the dataset.
"""

from dataclasses import dataclass

from compare import check_libraries

from minitrain.config.options import flag
from minitrain.errors import MinitrainError
from minitrain.run.flags import command


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What to measure on, and for how long."""

    model: str = flag("demo", "Hub id, local folder, or 'demo'")
    dataset: str = flag("demo", "Hub id, local folder, or 'demo'")
    subset: str | None = flag(None, "configuration of the dataset, e.g. mrpc")
    per_device_train_batch_size: int = flag(8, "examples a step")
    steps: int = flag(150, "optimizer steps of each side")
    warmup: int = flag(50, "of them not timed: the first steps compile")
    rounds: int = flag(3, "times that each side runs")
    threads: int = flag(2, "threads of each side")
    device: str = flag("cpu", "where all sides compute", ("cpu", "cuda"))
    quick: bool = flag(False, "one round of 60 steps, 20 of them not timed: under ten minutes")
    fp32_only: bool = flag(False, "leave out bf16, which a processor without it takes forever to emulate")
    growth: bool = flag(False, "minitrain alone, on 4,000, 40,000, 400,000 and 1,000,000 examples")
    json: str | None = flag(None, "write all that was measured to this file too")

    def __post_init__(self) -> None:
        if self.quick:
            for name, value in {"steps": 60, "warmup": 20, "rounds": 1}.items():
                object.__setattr__(self, name, value)
        for name in ("per_device_train_batch_size", "rounds", "threads"):
            if getattr(self, name) < 1:
                raise MinitrainError(f"--{name} is {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.warmup < self.steps - 1:
            raise MinitrainError(f"--warmup is {self.warmup}; expected 0 or more, and two steps less than --steps")


def benchmark(config: BenchmarkConfig) -> None:
    """Measure, print, write. Raises MinitrainError where a side fails, or comes to another loss."""
    check_libraries()
    from compare import race  # torch comes with it: --help answers without

    (race.run_growth if config.growth else race.run)(config)


if __name__ == "__main__":
    command(BenchmarkConfig, benchmark, "Compare minitrain's speed with transformers'.")
