"""Label new texts with a saved run: `echo "great film" | python scripts/predict.py RUN`."""

from minitrain.config.inference_config import PredictConfig
from minitrain.data.gc_pause import gc_paused
from minitrain.run.flags import command


def predict(config: PredictConfig) -> None:
    with gc_paused(for_good=True):
        from minitrain.run.predict import predict_run  # imports torch, which --help does not need

    predict_run(config)


if __name__ == "__main__":
    command(PredictConfig, predict, "Label new texts, as JSON lines or CSV.", positional=("run",))
