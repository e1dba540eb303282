"""Look at the data before training: `python scripts/check.py my.csv`."""

from minitrain.config.check_config import CheckConfig
from minitrain.run.flags import command


def check(config: CheckConfig) -> None:
    from minitrain.run.check import check_data

    check_data(config)


if __name__ == "__main__":
    command(CheckConfig, check, "Find faults in the data before training.", positional=("data",))
