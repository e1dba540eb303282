"""Score a saved run on its own evaluation data or other: `python scripts/evaluate.py RUN`."""

from minitrain.config.inference_config import EvaluateConfig
from minitrain.data.gc_pause import gc_paused
from minitrain.run.flags import command


def evaluate(config: EvaluateConfig) -> None:
    with gc_paused(for_good=True):
        from minitrain.run.evaluate import evaluate_run  # imports torch, which --help does not need

    evaluate_run(config)


if __name__ == "__main__":
    command(EvaluateConfig, evaluate, "Score a saved run.", positional=("run",))
