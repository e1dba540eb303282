"""Upload a saved run to the Hub: `python scripts/push.py RUN OWNER/NAME`."""

from minitrain.config.push_config import PushConfig
from minitrain.run.flags import command


def push(config: PushConfig) -> None:
    from minitrain.run.push import push_run

    push_run(config)


if __name__ == "__main__":
    command(PushConfig, push, "Upload a saved run to the Hub.", positional=("run", "name"))
