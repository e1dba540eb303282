"""The house stands as it is drawn: who imports whom, and what no file may hold, read from the syntax trees."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Bottom up: a module imports from floors below its own, and on its own floor only what WITHIN says.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    (
        "attention",
        "carry",
        "config",
        "data_config",
        "distributed",
        "download",
        "dropout",
        "encoder_config",
        "field_types",
        "files",
        "flags",
        "imports",
        "inference_config",
        "kernels",
        "label_map",
        "options",
        "packing",
        "place",
        "products",
        "progress",
        "known_flags",
        "scalars",
        "read_options",
        "schedules",
        "stopping",
        "truncation",
    ),
    (
        "folders",
        "hub",
        "tensorfiles",
        "tokenizer_families",
        "tokenizer_classes",
        "special_tokens",
        "tokenizer_notes",
        "tokenizer_files",
        "tokenizer",
        "token_cache",
        "table",
        "text_files",
        "delimited",
        "json_rows",
        "parquet_rows",
        "dataset_folder",
        "demo",
        "overlap",
        "hub_datasets",
        "tables",
        "label_values",
        "label_ids",
        "label_notes",
        "labels",
        "memory",
        "sampling",
        "rows",
        "targets",
        "splits",
        "data",
        "ahead",
        "batching",
        "collating",
        "layers",
        "families",
        "model",
        "checkpoint_keys",
        "loading",
        "weights",
        "checkpoint",
    ),
    ("clipping", "loss", "metrics", "optim", "param_groups", "regression_metrics", "touched", "values"),
    (
        "evaluation",
        "best",
        "compiling",
        "graphs",
        "plan",
        "profiling",
        "resuming",
        "step",
        "steplog",
        "checkpointing",
        "training",
    ),
    ("input_lines", "record_files", "records"),
    ("card", "predictions", "report"),
    ("summary",),
    ("saved_run", "labelling", "inference", "launcher", "run"),
    ("__init__",),
    ("sides",),
    ("scripts", "examples", "benchmarks"),
)
# Exactly the imports on one floor: hub -> tokenizer, tables -> labels -> rows -> data -> batching, and
# layers -> families -> model -> weights.
WITHIN: dict[str, set[str]] = {
    "attention": {"dropout"},
    "config": {"data_config", "options"},
    "data_config": {"label_map", "options", "read_options"},
    "download": {"files"},
    "field_types": {"scalars"},
    "flags": {"known_flags"},
    "inference_config": {"config", "files", "label_map", "options", "read_options"},
    "kernels": {"attention", "dropout", "packing", "products"},
    "options": {"field_types"},
    "packing": {"products"},
    "place": {"config", "read_options"},
    "read_options": {"options"},
    "stopping": {"distributed"},
    "hub": {"folders"},
    "tensorfiles": {"folders"},
    "tokenizer_classes": {"tokenizer_families"},
    "special_tokens": {"tokenizer_families"},
    "tokenizer_notes": {"special_tokens"},
    "tokenizer_files": {"special_tokens", "tokenizer_classes", "tokenizer_families", "tokenizer_notes"},
    "tokenizer": {"hub", "special_tokens", "tokenizer_files"},
    "token_cache": {"tokenizer"},
    "delimited": {"table"},
    "json_rows": {"table"},
    "parquet_rows": {"table"},
    "dataset_folder": {"parquet_rows", "table"},
    "demo": {"hub", "table"},
    "overlap": {"table"},
    "hub_datasets": {"dataset_folder"},
    "tables": {
        "dataset_folder",
        "delimited",
        "demo",
        "hub",
        "hub_datasets",
        "json_rows",
        "parquet_rows",
        "table",
        "text_files",
    },
    "label_values": {"tables"},
    "label_ids": {"label_values", "tables"},
    "label_notes": {"label_ids", "label_values", "tables"},
    "labels": {"label_ids", "label_values", "tables"},
    "memory": {"tables", "tokenizer"},
    "sampling": {"labels", "tables", "tokenizer"},
    "rows": {"label_notes", "label_values", "labels", "memory", "overlap", "sampling", "tables"},
    "splits": {"labels", "tables", "targets", "token_cache", "tokenizer"},
    "data": {"labels", "memory", "rows", "splits", "tables", "token_cache", "tokenizer"},
    "ahead": {"data", "hub", "rows", "tokenizer"},
    "batching": {"collating"},
    "collating": {"tokenizer"},
    "families": {"layers"},
    "model": {"families", "layers"},
    "checkpoint_keys": {"families"},
    "loading": {"checkpoint_keys", "families", "model", "tensorfiles"},
    "weights": {"families", "folders", "hub", "loading", "model"},
    "checkpoint": {"tensorfiles"},
    "clipping": {"param_groups"},
    "metrics": {"regression_metrics", "values"},
    "optim": {"param_groups", "touched"},
    "best": {"evaluation"},
    "compiling": {"evaluation"},
    "step": {"compiling", "evaluation", "graphs", "profiling"},
    "checkpointing": {"best", "evaluation", "plan", "resuming", "step"},
    "training": {"best", "checkpointing", "evaluation", "plan", "profiling", "step", "steplog"},
    "labelling": {"saved_run"},
    "inference": {"labelling", "saved_run"},
}
RUN_TIME = {"torch", "tokenizers", "datasets", "safetensors", "huggingface_hub", "tqdm", "numpy"}
SLOW = {"datasets", "huggingface_hub", "numpy"}  # imported inside functions, so that a start does not wait for them
REFERENCES = {"transformers", "accelerate", "evaluate", "sklearn", "scipy"}
SIDES = sorted((ROOT / "scripts/sides").glob("*.py"))  # what parity.py and ladder.py run beside us
RUNS_CODE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}

MODULES = sorted((ROOT / "minitrain").rglob("*.py"))
SCRIPTS = [
    path for folder in ("scripts", "examples", "benchmarks") for path in sorted((ROOT / folder).glob("*.py"))
]
CODE = [*MODULES, *SIDES, *SCRIPTS]


def of(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def unit_of(path: Path) -> str:
    """minitrain/families/bert.py -> families, minitrain/run.py -> run, scripts/sides/ours.py -> sides"""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "minitrain" or len(parts) > 2 else parts[0]


def floor_of(unit: str) -> int:
    return next(i for i, units in enumerate(FLOORS) if unit in units)


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names, wherever in the file they are imported; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """The units of ours that a file imports."""
    units = {unit for floor in FLOORS for unit in floor}
    found = set()
    for name in imported(tree_of(path)):
        package, _, rest = name.partition(".")
        if package == "sides":
            found.add("sides")
        if package == "minitrain":
            first = rest.split(".")[0]
            found.add(first if first in units else "__init__")  # a public name comes by way of the package
    return found


def third_party(tree: ast.AST) -> set[str]:
    return {name.split(".")[0] for name in imported(tree)} - set(sys.stdlib_module_names) - {"minitrain", "sides"}


def test_every_module_is_named_on_one_floor() -> None:
    named = [unit for floor in FLOORS for unit in floor]
    assert len(named) == len(set(named))
    assert set(named) == {unit_of(path) for path in CODE}


@of(CODE)
def test_module_imports_only_from_floors_below(path: Path) -> None:
    unit = unit_of(path)
    allowed = {other for floor in FLOORS[: floor_of(unit)] for other in floor} | WITHIN.get(unit, set()) | {unit}
    if unit != "__init__":
        assert own_imports(path) <= allowed


def test_imports_on_one_floor_are_those_that_are_drawn() -> None:
    actual: dict[str, set[str]] = {}
    for path in CODE:
        unit = unit_of(path)
        beside = {other for other in own_imports(path) if other != unit and floor_of(other) == floor_of(unit)}
        if beside:
            actual[unit] = actual.get(unit, set()) | beside
    assert actual == WITHIN


TENSORS_ONLY = [
    "clipping",
    "loss",
    "metrics",
    "optim",
    "param_groups",
    "regression_metrics",
    "touched",
    "values",
]


@pytest.mark.parametrize("unit", TENSORS_ONLY)
def test_arithmetic_of_the_third_floor_sees_tensors_only(unit: str) -> None:
    assert own_imports(ROOT / f"minitrain/{unit}.py") <= {"errors", "scalars", *TENSORS_ONLY}


@of(CODE)
def test_only_what_is_declared_is_imported_and_no_reference_library(path: Path) -> None:
    allowed = RUN_TIME | (REFERENCES if path in SIDES else set())
    assert third_party(tree_of(path)) <= allowed


def test_declared_dependencies_are_those_that_are_imported() -> None:
    used = {name.replace("_", "-") for path in MODULES for name in third_party(tree_of(path))}
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.split("\ndependencies = [")[1].split("]")[0]
    declared = {line.strip().strip('",').split(">=")[0] for line in block.splitlines() if line.strip()}
    assert used - {"numpy"} == declared  # numpy comes with datasets


@of(MODULES)
def test_slow_libraries_are_imported_where_they_are_used(path: Path) -> None:
    top = ast.Module([node for node in tree_of(path).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert not third_party(top) & SLOW


# What stands between the flags and the first answer.
COMMAND_LINE = [
    "config",
    "data_config",
    "errors",
    "field_types",
    "flags",
    "inference_config",
    "known_flags",
    "label_map",
    "options",
    "scalars",
]


@pytest.mark.parametrize("unit", COMMAND_LINE)
def test_command_line_needs_no_torch(unit: str) -> None:
    assert third_party(tree_of(ROOT / f"minitrain/{unit}.py")) == set()


@of(CODE)
def test_nothing_that_runs_code_from_a_file_is_used(path: Path) -> None:
    tree = tree_of(path)
    names = set(imported(tree))
    assert not {name.split(".")[0] for name in names} & RUNS_CODE
    assert not names & {"torch.load", "torch.save"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("torch", "load"), ("torch", "save")}
        if isinstance(node, ast.Name):
            assert node.id not in {"eval", "exec", "__import__"}
        if isinstance(node, ast.keyword):
            assert node.arg not in {"trust_remote_code", "allow_pickle", "weights_only"}


def test_the_search_for_pickles_finds_them() -> None:
    """The check above, on what it must not miss."""
    for line in ("import pickle", "from pickle import loads", "from torch import load", "import joblib as j"):
        names = set(imported(ast.parse(line)))
        assert {name.split(".")[0] for name in names} & RUNS_CODE or names & {"torch.load"}


@of([*MODULES, *SIDES])
def test_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@of(CODE)
def test_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree_of(path))


@of([*MODULES, *SIDES])
def test_public_functions_and_classes_say_what_they_do(path: Path) -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in tree_of(path).body if isinstance(node, kinds) and not node.name.startswith("_")]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


@of(CODE)
def test_every_signature_is_typed(path: Path) -> None:
    bare = []
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        arguments += [extra for extra in (node.args.vararg, node.args.kwarg) if extra is not None]
        missing = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        if missing or node.returns is None:
            bare.append((node.name, missing))
    assert bare == []


@of(SCRIPTS)
def test_scripts_do_nothing_when_they_are_imported(path: Path) -> None:
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    *body, last = tree_of(path).body
    assert isinstance(last, ast.If) and ast.unparse(last.test) == "__name__ == '__main__'"
    assert all(isinstance(node, allowed) for node in body[1:])
