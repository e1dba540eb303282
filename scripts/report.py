"""Write report.html for a saved run: `python scripts/report.py RUN`."""

from minitrain.config.report_config import ReportConfig
from minitrain.data.gc_pause import gc_paused
from minitrain.run.flags import command


def report(config: ReportConfig) -> None:
    with gc_paused(for_good=True):
        from minitrain.run.html.write import report_of  # imports torch, which --help does not need

    print(f"report: {report_of(config)}")


if __name__ == "__main__":
    command(ReportConfig, report, "Write report.html for a saved run.", positional=("run",))
