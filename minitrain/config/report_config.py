"""Settings and flags of report.py."""

from dataclasses import MISSING, dataclass

from minitrain.config.options import check_flags, flag


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Which run to make a report of."""

    run: str = flag(MISSING, "folder that a training run saved")

    def __post_init__(self) -> None:
        check_flags(self)
