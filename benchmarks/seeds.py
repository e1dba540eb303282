"""Train MRPC with both arithmetics and five seeds into benchmarks/seeds.json: most of an hour on two cores.

Usage: python benchmarks/seeds.py [dataset]    (nyu-mll/glue by default, or a local copy of it)
Runs in runs/seeds/ are not repeated.
"""

import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (42, 1, 2, 3, 4)
KINDS = ("reference", "fast")
SCORES = [(split, metric) for split in ("validation", "test") for metric in ("accuracy", "f1")]


def main(dataset: str = "nyu-mll/glue") -> None:
    """Train all, one thread per run and a run per core, and write the scores."""
    jobs = [(kind, seed) for seed in SEEDS for kind in KINDS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = list(pool.map(lambda job: trained(dataset, *job), jobs))
    kinds = {}
    for kind in KINDS:
        own = [run["results"] for (its, _), run in zip(jobs, runs, strict=True) if its == kind]
        kinds[kind] = {f"{split} {metric}": spread([run[split][metric] for run in own]) for split, metric in SCORES}
    facts = {"config": runs[0]["config"], "versions": runs[0]["versions"], "kinds": kinds}
    (ROOT / "benchmarks/seeds.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    for kind, scores in kinds.items():
        shown = ", ".join(f"{name} {s['mean']:.4f} +- {s['deviation']:.4f}" for name, s in scores.items())
        print(f"{kind:<10} {shown}")


def spread(values: list[float]) -> dict[str, Any]:
    """Mean, deviation and values of the seeds, in their order."""
    by_seed = dict(zip(SEEDS, values, strict=True))
    return {"mean": statistics.mean(values), "deviation": statistics.stdev(values), "by_seed": by_seed}


def trained(dataset: str, kind: str, seed: int) -> dict[str, Any]:
    """Train, unless the run exists, and return its `results.json`."""
    output = f"runs/seeds/{kind}-{seed}"
    results = ROOT / output / "results.json"
    if not results.exists():
        command = [sys.executable, "scripts/train.py", "--model", "demo", "--dataset", dataset, "--subset", "mrpc"]
        command += ["--report", "false"]
        command += ["--seed", str(seed), "--kernels", kind, "--output_dir", output, "--overwrite_output_dir"]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    result: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
