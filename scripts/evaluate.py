"""Score a saved run: `python scripts/evaluate.py RUN`, on its own evaluation data or other."""

from minitrain.flags import command
from minitrain.imports import uncollected
from minitrain.inference_config import EvaluateConfig


def evaluate(config: EvaluateConfig) -> None:
    with uncollected(for_good=True):
        from minitrain.inference import evaluate_run  # torch comes with it

    evaluate_run(config)


if __name__ == "__main__":
    command(EvaluateConfig, evaluate, "Score a saved run.", positional=("run",))
