#!/usr/bin/env bash
# Which mlflow, numpy and pandas pip installs beside the newest pyarrow.
#
# One would guess: the newest mlflow, or an error that it does not go with this pyarrow. What happens (mlflow 3.17.2,
# pyarrow 26.0.1, both of 2026): mlflow 3.17.2 asks for a pyarrow below 26, as all before it down to 2.0 ask for one
# below some version. 1.30.1, of 2022, names no pyarrow at all, so pip walks back through four years of versions and
# takes it, with numpy 1.26 and pandas 1.5 in place of 2.x and 3.x, and says nothing. It imports and logs: what it
# stores, and how, is of 2022. An environment where pyarrow 26 has to stay is enough to meet it; mlflow-skinny needs
# no pyarrow and comes as new as it is.
# Why: Requires-Dist of mlflow 3.17.2 has "pyarrow<26,>=4.0.0", that of 1.30.1 names no pyarrow; pip prefers any
# version that fits over an error.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip --disable-pip-version-check install --quiet --dry-run)
"${pip[@]}" --report "$work/full.json" 'mlflow<=3.17.2' pyarrow==26.0.1
"${pip[@]}" --report "$work/older.json" 'mlflow<=3.17.2' pyarrow==25.0.0
"${pip[@]}" --report "$work/skinny.json" 'mlflow-skinny<=3.17.2' pyarrow==26.0.1
"$work/venv/bin/python" - "$work" <<'PYTHON'
import json
import sys
from pathlib import Path


def chosen(name: str, *packages: str) -> dict[str, str]:
    report = json.loads(Path(sys.argv[1], name).read_text())
    found = {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in report["install"]}
    return {package: found[package] for package in packages if package in found}


full = chosen("full.json", "mlflow", "numpy", "pandas", "pyarrow")
older = chosen("older.json", "mlflow", "numpy", "pandas", "pyarrow")
skinny = chosen("skinny.json", "mlflow-skinny", "pyarrow")
print("pip install mlflow, pyarrow 26.0.1:", full)
print("pip install mlflow, pyarrow 25.0.0:", older)
print("pip install mlflow-skinny, pyarrow 26.0.1:", skinny)
same = full["mlflow"] == "1.30.1" and full["numpy"].startswith("1.26") and full["pandas"].startswith("1.5")
same = same and older["mlflow"] == "3.17.2" and skinny["mlflow-skinny"] == "3.17.2"
print("as described" if same else "CHANGED")
sys.exit(not same)
PYTHON
