"""Compare saved runs with the first of them: `python scripts/compare.py RUN RUN...`."""

from minitrain.config.compare_config import CompareConfig
from minitrain.data.gc_pause import gc_paused
from minitrain.run.flags import command


def compare(config: CompareConfig) -> None:
    with gc_paused(for_good=True):
        from minitrain.run.compare.comparison import compare_runs  # imports torch, which --help does not need

    compare_runs(config)


if __name__ == "__main__":
    command(CompareConfig, compare, "Compare saved runs with the first of them.", positional=("runs",))
