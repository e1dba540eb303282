"""Settings of uploads to the Hub: what train.py checks of them, and the flags of push.py."""

from dataclasses import MISSING, dataclass
from typing import Any

from minitrain.config.options import check_flags, flag
from minitrain.errors import MinitrainError

# What Trainer's flag of the same name takes, and no name of a repository that anyone means.
TRUTHS = ("true", "false", "yes", "no", "0", "1")


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """What to upload, and to where."""

    run: str = flag(MISSING, "folder that a training run saved")
    name: str = flag(MISSING, "repository of the Hub: OWNER/NAME, or NAME for one of yours; made if it is missing")
    private: bool = flag(False, "nobody else may see the repository")

    def __post_init__(self) -> None:
        check_flags(self)


def check_push(config: Any) -> None:
    """Raise MinitrainError for settings of a TrainConfig that do not go with --push_to_hub, or need it."""
    name = config.push_to_hub
    if name is None:
        if config.hub_private:
            raise MinitrainError("--hub_private is about --push_to_hub OWNER/NAME: pass both, or leave it out")
        return
    if name.lower() in TRUTHS:
        raise MinitrainError(f"--push_to_hub is {name}; it takes a repository of the Hub: --push_to_hub OWNER/NAME")
    if config.has_several_runs:
        flag = "--folds" if config.folds is not None else "--seeds"
        raise MinitrainError(
            f"--push_to_hub uploads one model, {flag} trains several: pass --keep_folds instead, and upload one of "
            f"the kept: python scripts/push.py RUN/{_first_of(config)} {name}"
        )


def _first_of(config: Any) -> str:
    """The folder of the first of several runs."""
    parts = [] if config.seeds is None else [f"seed-{config.seeds[0]}"]
    return "-".join([*parts, *([] if config.folds is None else ["fold-1"])])
