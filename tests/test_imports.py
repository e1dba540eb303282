"""What is imported when: a start that costs little, and no reference library behind a whole run."""

import ast
import json
import os
import statistics
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from test_layout import REFERENCES, ROOT
from test_loop import write_tiny_model
from test_main import config, named_reviews, write_csv, write_rows

import minitrain
from minitrain.run.main import train


def python(code: str, *words: Any) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_tiny_model(folder / "tiny")
    for name, count in (("train", 64), ("eval", 16)):
        write_csv(folder / f"{name}.csv", *named_reviews(count))
        write_rows(folder / f"{name}.parquet", *named_reviews(count))
    return folder


def test_public_names_cost_little_more_than_torch() -> None:
    code = """
import time
start = time.process_time()
import torch
torch_is_there = time.process_time()
import minitrain
for name in minitrain.__all__:
    getattr(minitrain, name)
print((time.process_time() - torch_is_there) / (torch_is_there - start))
"""
    # A quarter to a third, much of it the tokenizers library; datasets alone would cost more than half of torch.
    # It is a share of processor time, which a busy machine changes little.
    assert statistics.median(float(python(code)) for _ in range(3)) <= 0.4


def test_package_alone_and_the_command_line_do_without_torch() -> None:
    code = """
import runpy, sys
import minitrain
from minitrain import MinitrainError, TrainConfig
for script in ("train", "evaluate", "predict"):
    for flags in (["--help"], ["run", "--wrong"]):
        sys.argv = [f"{script}.py", *flags]
        try:
            runpy.run_path(f"{sys.path_root}/scripts/{script}.py", run_name="__main__")
        except SystemExit as exit:
            assert exit.code == (2 if "--wrong" in flags else 0), exit.code
        else:
            raise AssertionError("it went on")
assert not {"torch", "numpy", "tokenizers", "datasets"} & set(sys.modules)
"""
    assert "--learning_rate" in python(f"import sys; sys.path_root = {str(ROOT)!r}\n{code}")


LOADED = """
import json, sys
json.dump(sorted({name.split(".")[0] for name in sys.modules}), open(sys.argv[1], "w"))
"""
RUN = """
import sys
from minitrain.config.train_config import TrainConfig
from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.run.evaluate import evaluate_run
from minitrain.run.predict import predict_run
from minitrain.run.main import train
folder, out, kind = sys.argv[2:]
train(TrainConfig(
    model=f"{folder}/tiny", train_file=f"{folder}/train.{kind}", eval_file=f"{folder}/eval.{kind}",
    output_dir=out, max_steps=3,
))
evaluate_run(EvaluateConfig(run=out))
predict_run(PredictConfig(run=out, input=f"{folder}/eval.{kind}", output=f"{out}/predictions.jsonl"))
# The compiler takes most of a second to import, and torch's own optimizers do so.
assert "torch._dynamo" not in sys.modules
"""


def loaded_by(code: str, tmp_path: Path, *words: Any) -> set[str]:
    """The top packages in memory after running `code`."""
    python(code + LOADED, tmp_path / "loaded.json", *words)
    return set(json.loads((tmp_path / "loaded.json").read_text(encoding="utf-8")))


def test_whole_run_imports_no_reference_library(data: Path, tmp_path: Path) -> None:
    loaded = loaded_by(RUN, tmp_path, data, tmp_path / "run", "csv")
    assert {"minitrain", "torch", "huggingface_hub"} <= loaded  # it did go all the way
    assert not loaded & {"datasets", *REFERENCES}
    assert len((tmp_path / "run/predictions.jsonl").read_text(encoding="utf-8").splitlines()) == 16


def test_whole_run_works_where_no_reference_library_is_installed(data: Path, tmp_path: Path) -> None:
    # `datasets`, which reads parquet, imports scipy by itself where it finds it.
    hide = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_others(name, path=None, target=None):
    return None if name in {sorted(REFERENCES)} else find(name, path, target)
PathFinder.find_spec = find_others
"""
    with pytest.raises(AssertionError, match="No module named 'transformers'"):
        python(f"{hide}import transformers")
    assert "datasets" in loaded_by(f"{hide}\n{RUN}", tmp_path, data, tmp_path / "run", "parquet")
    assert len((tmp_path / "run/predictions.jsonl").read_text(encoding="utf-8").splitlines()) == 16


def test_prediction_starts_without_datasets(data: Path, tmp_path: Path) -> None:
    train(config(data / "tiny", data, tmp_path / "run", max_steps=1))
    code = """
import sys
from minitrain.config.inference_config import PredictConfig
from minitrain.run.predict import predict_run
predict_run(PredictConfig(run=sys.argv[2], input=sys.argv[3]))
"""
    loaded = loaded_by(code, tmp_path, tmp_path / "run", data / "eval.csv")
    assert {"minitrain", "torch", "tokenizers"} <= loaded
    assert not loaded & {"datasets", "pyarrow", "pandas", "huggingface_hub", *REFERENCES}


def test_names_for_the_type_checker_are_those_at_run_time() -> None:
    tree = ast.parse(Path(minitrain.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    typed = {}
    for node in block.body:
        if isinstance(node, ast.Assign):  # another name of one above it
            continue
        assert isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names:
            assert alias.asname == alias.name  # which makes it a re-export
            typed[alias.name] = node.module.removeprefix("minitrain.")
    homes: dict[str, tuple[str, ...]] = vars(minitrain)["_PUBLIC"]
    assert typed == {name: module for module, names in homes.items() for name in names}
    assert minitrain.__all__ == sorted([*typed, *vars(minitrain)["_ALIASES"]])


def test_every_public_name_is_there_and_at_home() -> None:
    namespace: dict[str, Any] = {}
    exec("from minitrain import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(minitrain.__all__) == set(dir(minitrain))
    for module, names in vars(minitrain)["_PUBLIC"].items():
        for name in names:
            assert namespace[name].__module__ == f"minitrain.{module}"


def test_names_and_modules_of_version_0_1_0_still_import() -> None:
    homes = {
        "batching": ("Batch", "BucketBatchSampler", "RandomBatchSampler", "collate", "share"),
        "clipping": ("clip_grad_norm",),
        "collating": ("Batch", "collate"),
        "config": ("TrainConfig",),
        "data": ("load_splits", "tokenize"),
        "distributed": ("World", "data_parallel", "process_group"),
        "evaluation": ("evaluate", "predict"),
        "launcher": ("launch",),
        "loss": ("cross_entropy", "mean_squared_error"),
        "metrics": ("GlueMetric", "Metric", "accuracy", "f1", "metric_for"),
        "model": ("Encoder", "SequenceClassifier"),
        "optim": ("AdamW",),
        "param_groups": ("decay_groups",),
        "run": ("train",),
        "schedules": ("constant_schedule", "cosine_schedule", "linear_schedule"),
        "tables": ("load_tables",),
        "tokenizer": ("Example", "Tokenizer", "load_tokenizer"),
        "training": ("fit",),
        "weights": ("load_classifier", "load_encoder", "save_classifier"),
    }
    for module, names in homes.items():
        for name in names:
            assert getattr(import_module(f"minitrain.{module}"), name) is getattr(minitrain, name)


def test_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(AttributeError, match="minitrain has no 'Trainer'; it has AdamW, Batch"):
        minitrain.Trainer  # noqa: B018
    assert not hasattr(minitrain, "__wrapped__")
