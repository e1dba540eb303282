"""Settings and flags of compare.py."""

import os
from dataclasses import MISSING, dataclass

from minitrain.config.inference_config import same_file
from minitrain.config.options import check_flags, flag
from minitrain.errors import MinitrainError


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Which saved runs are compared, and how."""

    runs: tuple[str, ...] = flag(
        MISSING, "folders of saved runs, or rows that evaluate.py --output wrote; the first is the reference"
    )
    metrics: tuple[str, ...] | None = flag(None, "metrics to compare, in this order; default: the runs'")
    show: int = flag(5, "texts to show that one run gets right and the other wrong, of each kind", bounds=(0, None))
    resamples: int | None = flag(
        None, "bootstrap resamples; default: 10000, fewer of many rows", bounds=(100, 1_000_000)
    )
    seed: int = flag(42, "of the bootstrap", bounds=(0, 2**32 - 1))
    json: str | None = flag(None, "write the comparison to this file too")

    def __post_init__(self) -> None:
        check_flags(self)
        if len(self.runs) < 2:
            raise MinitrainError(f"got {len(self.runs)} run ({', '.join(self.runs)}); give two or more to compare")
        places = [os.path.realpath(run) for run in self.runs]
        for run, place in zip(self.runs, places, strict=True):
            if places.count(place) > 1:
                raise MinitrainError(f"{run}: is given twice; a run cannot be compared with itself")
            if self.json is not None and same_file(self.json, run):
                raise MinitrainError(f"--json {self.json}: is one of the files that are compared; name another")
