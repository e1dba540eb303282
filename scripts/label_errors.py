"""Find labels that are probably wrong in the data of a saved run: `python scripts/label_errors.py RUN`."""

from minitrain.config.label_errors_config import LabelErrorsConfig
from minitrain.run.flags import command


def label_errors(config: LabelErrorsConfig) -> None:
    from minitrain.run.label_errors import label_errors_of_run  # imports torch, which --help does not need

    label_errors_of_run(config)


if __name__ == "__main__":
    command(LabelErrorsConfig, label_errors, "Find labels that are probably wrong.", positional=("run",))
