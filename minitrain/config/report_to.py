"""`--report_to`: which trackers there are, and whether those that a run names are installed."""

from importlib.util import find_spec
from typing import Any

from minitrain.errors import MinitrainError, shown

# Each tracker with the package that has it; the module has the tracker's name.
PACKAGES = {"tensorboard": "tensorboard", "trackio": "trackio", "wandb": "wandb", "mlflow": "mlflow"}


def check_report_to(config: Any) -> None:
    """Raise MinitrainError for a tracker of a TrainConfig that there is not, or is named twice."""
    names = config.report_to or ()
    for name in names:
        if name not in (*PACKAGES, "all", "none"):
            raise MinitrainError(
                f"--report_to: {shown(name)} is no tracker; expected one or more of {', '.join(PACKAGES)}, or all, "
                "or none"
            )
        if name in ("all", "none") and len(names) > 1:
            raise MinitrainError(f"--report_to {','.join(names)}: {name} stands alone; leave out the others")
    if len(set(names)) < len(names):
        raise MinitrainError(f"--report_to {','.join(names)}: names a tracker twice; name each once")


def trackers_of(report_to: tuple[str, ...] | None) -> list[str]:
    """The names of the trackers to report to; `all` are those that are installed, as in Trainer.

    Raises:
        MinitrainError: One that is named is not installed.
    """
    if report_to in (None, ("none",)):
        return []
    if report_to == ("all",):
        return [name for name in PACKAGES if _is_installed(name)]
    for name in report_to or ():
        if not _is_installed(name):
            raise MinitrainError(
                f"--report_to {name}: the package {PACKAGES[name]} is not installed; run "
                f"pip install {PACKAGES[name]}, or leave the tracker out"
            )
    return list(report_to or ())


def _is_installed(name: str) -> bool:
    # wandb writes into a folder of that name, which Python would import as an empty package.
    spec = find_spec(name)
    return spec is not None and spec.origin is not None
