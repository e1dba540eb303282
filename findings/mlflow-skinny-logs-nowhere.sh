#!/usr/bin/env bash
# Where mlflow-skinny logs if it is told nothing.
#
# One would guess ./mlruns, as for years, or the new default of mlflow 3, sqlite:///mlflow.db. What happens
# (mlflow-skinny 3.17.2, 2026), each with the way out that its message gives:
#   nothing set                  the default is sqlite:///mlflow.db, which the skinny package cannot open; the message is
#                                about the model registry, which is not used, and lists "file" as supported
#   file:///...                  refused, too: "migrate to a database backend (e.g., 'sqlite:///mlflow.db')"
#   the same with MLFLOW_ALLOW_FILE_STORE=true    logs
# So the two messages send to each other, and only an environment variable or a server ends it.
# Why: mlflow/tracking/_tracking_service/utils.py chooses the default without asking whether SQLAlchemy is there;
# mlflow/store/tracking/file_store.py refuses unless the variable is set.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check mlflow-skinny==3.17.2
cat > "$work/log.py" <<'PYTHON'
import sys

import mlflow

if len(sys.argv) > 1:
    mlflow.set_tracking_uri(sys.argv[1])
try:
    with mlflow.start_run():
        mlflow.log_metric("loss", 1.0)
    print("logged")
except Exception as error:
    print(f"{type(error).__name__}: {' '.join(str(error).split())[:170]}")
PYTHON
cd "$work"
export GIT_PYTHON_REFRESH=quiet
unset MLFLOW_TRACKING_URI MLFLOW_ALLOW_FILE_STORE
plain=$(venv/bin/python log.py 2> /dev/null)
file=$(venv/bin/python log.py "file://$work/mlruns" 2> /dev/null)
allowed=$(MLFLOW_ALLOW_FILE_STORE=true venv/bin/python log.py "file://$work/mlruns" 2> /dev/null)
printf 'nothing set: %s\nfile://: %s\nfile:// and MLFLOW_ALLOW_FILE_STORE: %s\n' "$plain" "$file" "$allowed"
case "$plain|$file|$allowed" in
    UnsupportedModelRegistryStoreURIException*"|MlflowException"*"|logged") echo "as described" ;;
    *) echo "CHANGED" && exit 1 ;;
esac
