"""Label new texts with a saved run: `echo "great film" | python scripts/predict.py RUN`."""

from minitrain.flags import command
from minitrain.imports import uncollected
from minitrain.inference_config import PredictConfig


def predict(config: PredictConfig) -> None:
    with uncollected(for_good=True):
        from minitrain.inference import predict_run  # torch comes with it

    predict_run(config)


if __name__ == "__main__":
    command(PredictConfig, predict, "Label new texts, as JSON lines or CSV.", positional=("run",))
