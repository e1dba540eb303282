"""The settings of --folds and --seeds, which train several times: seeds as numbers, and what goes with what."""

from typing import Any

from minitrain.config.options import plain
from minitrain.errors import MinitrainError, shown

LARGEST_SEED = 2**63 - 1


def seeds_as_text(seeds: Any) -> Any:
    """(42, 1) -> ("42", "1"), as the check of flags wants a list; what is no list is left for it to refuse."""
    return tuple(str(plain(seed)) for seed in seeds) if isinstance(seeds, list | tuple | range) else seeds


def seeds_as_numbers(seeds: tuple[str, ...] | None) -> tuple[int, ...] | None:
    """("42", "1") -> (42, 1). Raises MinitrainError for one that is no whole number from 0, or is repeated."""
    if seeds is None:
        return None
    numbers = []
    for seed in seeds:
        if not (seed.isascii() and seed.isdecimal()) or int(seed) > LARGEST_SEED:
            raise MinitrainError(f"--seeds: {shown(seed)} is no seed; expected whole numbers from 0, as in 42,1,2")
        if int(seed) in numbers:
            raise MinitrainError(f"--seeds: {seed} is named twice, and would count twice; name each seed once")
        numbers.append(int(seed))
    if not numbers:
        raise MinitrainError("--seeds is empty; expected whole numbers, as in 42,1,2")
    return tuple(numbers)


def check_several_runs(config: Any) -> None:
    """Raise MinitrainError for settings of a TrainConfig that do not go with --folds or --seeds, or need them."""
    if config.group_column is not None and config.folds is None:
        raise MinitrainError("--group_column keeps groups in one of --folds: pass --folds 5, or leave it out")
    if config.folds is None and config.seeds is None:
        if config.keep_folds:
            raise MinitrainError("--keep_folds keeps the models of --folds or --seeds: pass one of them")
        return
    flag = "--folds" if config.folds is not None else "--seeds"
    if config.folds is not None and config.eval_fraction:
        raise MinitrainError("--folds holds back each row once, --eval_fraction some of them: pass one of the two")
    if not config.do_eval:
        raise MinitrainError(f"{flag} compares evaluations: leave out --do_eval false")
    if config.resume not in (None, "newest"):
        raise MinitrainError(f"{flag}: --resume {config.resume} is a checkpoint of one run; pass --resume alone")
    if config.resume_changed:
        raise MinitrainError(f"{flag}: all runs need the same settings: leave out --resume_changed")
    if config.calibrate and not config.keep_folds:
        raise MinitrainError(f"{flag}: --calibrate is for models that are kept: pass --keep_folds, or leave it out")
