"""Writes report.html: for a finished run of train.py, and for scripts/report.py."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from minitrain.config.report_config import ReportConfig
from minitrain.errors import MinitrainError, cut
from minitrain.run.run_folder import REPORT, RESULTS
from minitrain.storage.files import write_whole

INSTALL = (
    "the pictures need matplotlib: pip install matplotlib, or pip install --editable '.[report]' in a checkout"
)


def is_drawable() -> bool:
    """Whether matplotlib is installed: then a run ends with a report, unless --report false."""
    return find_spec("matplotlib") is not None


def check_report(asked: bool | None) -> None:
    """Raise MinitrainError if `--report` asks for what cannot be drawn."""
    if asked and find_spec("matplotlib") is None:
        raise MinitrainError(f"--report: {INSTALL}; or leave it out to train without a report")


def write_report(directory: Path) -> Path:
    """Write the report of a saved run into its folder.

    Raises:
        MinitrainError: matplotlib is missing, the folder holds no finished run, or a file is damaged.
    """
    if find_spec("matplotlib") is None:
        raise MinitrainError(f"{directory}: {INSTALL}")
    from minitrain.run.html.facts import read_facts  # a run without a report does not wait for these
    from minitrain.run.html.page import page

    path, facts = directory / REPORT, read_facts(directory)
    try:
        html = page(facts)
    except (AttributeError, KeyError, TypeError) as error:
        what = f"is not as train.py writes it ({type(error).__name__}: {error})"
        raise MinitrainError(f"{directory / RESULTS}: {what}; get the file again") from error
    try:
        write_whole(path, html)
    except OSError as error:
        raise MinitrainError(
            f"{path}: cannot be written ({error.strerror or error}); make room, or copy the run elsewhere"
        ) from error
    return path


def report_of(config: ReportConfig) -> Path:
    """Write the report that scripts/report.py asks for."""
    directory = Path(config.run)
    if not directory.is_dir():
        raise MinitrainError(f"{directory}: no such folder; give the --output_dir of a run")
    return write_report(directory)


def report_lines(directory: Path, asked: bool | None) -> Sequence[str]:
    """Write the report of a run that was just saved; the lines that the run prints about it.

    A report that fails is no reason to lose what follows a run.
    """
    if asked is False or (asked is None and not is_drawable()):
        return []
    try:
        return [f"report: {write_report(directory)}"]
    except Exception as error:  # of matplotlib anything
        way = f"the run is saved; python scripts/report.py {directory} tries again"
        return [f"WARNING  no report ({type(error).__name__}: {cut(error)}); {way}"]
