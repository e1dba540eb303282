"""Who imports whom, and what no file may hold, read from the syntax trees."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Bottom up: a file imports from its own folder and from rows above its own, never from another folder of its row.
WINGS = (
    ("minitrain", "errors"),
    ("storage", "distributed"),
    ("config", "kernels"),
    ("data", "model"),
    ("training",),
    ("run",),
    ("references",),
    ("scripts", "examples", "benchmarks"),
)
RUN_TIME = {"torch", "tokenizers", "datasets", "safetensors", "huggingface_hub", "tqdm", "numpy"}
SLOW = {"datasets", "huggingface_hub", "numpy"}  # imported inside functions, so that a start does not wait for them
# Extras: each imported inside functions of few files, and declared under a name of its own.
EXTRAS = {
    "matplotlib": "report",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
    "mlflow": "mlflow",
}
REFERENCES = {"transformers", "accelerate", "evaluate", "sklearn", "scipy", "cleanlab"}
REFERENCE_SIDES = sorted((ROOT / "scripts/references").glob("*.py"))  # what parity.py and ladder.py run beside us
RUNS_CODE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}

MODULES = sorted((ROOT / "minitrain").rglob("*.py"))
SCRIPTS = [
    path for folder in ("scripts", "examples", "benchmarks") for path in sorted((ROOT / folder).glob("*.py"))
]
CODE = [*MODULES, *REFERENCE_SIDES, *SCRIPTS]


def of(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def wing_of(path: Path) -> str:
    """minitrain/data/batch.py -> data, minitrain/__init__.py -> minitrain, scripts/references/a.py -> references"""
    *folders, name = path.relative_to(ROOT).with_suffix("").parts
    if folders == ["minitrain"]:
        return "minitrain" if name == "__init__" else name
    return folders[1] if len(folders) > 1 else folders[0]


def row_of(wing: str) -> int:
    return next(number for number, wings in enumerate(WINGS) if wing in wings)


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names, wherever in the file they are imported; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path: Path) -> str:
    """minitrain/data/batch.py -> minitrain.data.batch, minitrain/data/__init__.py -> minitrain.data"""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULE_NAMES = {module_of(path) for path in MODULES}


def own_modules(path: Path) -> set[str]:
    """The modules of ours that a file imports, itself left out; for a public name, the package."""
    found = {name if name in MODULE_NAMES else name.rpartition(".")[0] for name in imported(tree_of(path))}
    return {name for name in found if name in MODULE_NAMES} - {module_of(path)}


def own_wings(path: Path) -> set[str]:
    """The folders of ours that a file imports from."""
    wings = {(name.split(".") + ["minitrain"])[1] if "." in name else name for name in own_modules(path)}
    return wings | {"references" for name in imported(tree_of(path)) if name.split(".")[0] == "references"}


def third_party(tree: ast.AST) -> set[str]:
    ours = {"minitrain", "references"}
    return {name.split(".")[0] for name in imported(tree)} - set(sys.stdlib_module_names) - ours


def test_every_file_is_in_a_wing() -> None:
    assert {wing_of(path) for path in CODE} == {wing for wings in WINGS for wing in wings}
    top = [
        path for path in (ROOT / "minitrain").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    assert len(top) <= 10


@of(
    [path for path in CODE if path != ROOT / "minitrain/__init__.py"]
)  # which imports a public name when it is used
def test_imports_go_down_only(path: Path) -> None:
    wing = wing_of(path)
    below = {other for wings in WINGS[: row_of(wing)] for other in wings} | {wing}
    assert own_wings(path) <= below


# What the way of a batch does not know: its files import none of these.
BESIDE_THE_WAY = {
    "minitrain.distributed.signals",
    "minitrain.kernels.compile",
    "minitrain.storage.checkpoint",
    "minitrain.storage.download",
    "minitrain.training.recorded_step",
}
SETS_UP = {"minitrain/training/setup.py", "minitrain/training/recorded_step.py"}
THE_WAY = [path for path in MODULES if wing_of(path) in ("data", "model", "training")]
THE_WAY = [path for path in THE_WAY if str(path.relative_to(ROOT)) not in SETS_UP]


@of([*THE_WAY, ROOT / "minitrain/kernels/reference.py"])
def test_the_way_of_a_batch_knows_of_no_checkpoint_download_lock_or_graph(path: Path) -> None:
    assert own_modules(path) & BESIDE_THE_WAY == set()


def test_no_two_modules_import_each_other_by_any_way() -> None:
    arrows = {module_of(path): own_modules(path) - {"minitrain"} for path in MODULES}
    while arrows:
        free = {name for name, targets in arrows.items() if not targets & arrows.keys()}
        assert free, f"in or above a circle: {sorted(arrows)}"
        arrows = {name: targets for name, targets in arrows.items() if name not in free}


@of(CODE)
def test_only_what_is_declared_is_imported_and_no_reference_library(path: Path) -> None:
    allowed = RUN_TIME | EXTRAS.keys() | (REFERENCES if path in REFERENCE_SIDES else set())
    assert third_party(tree_of(path)) <= allowed


def test_declared_dependencies_are_those_that_are_imported() -> None:
    used = {name.replace("_", "-") for path in MODULES for name in third_party(tree_of(path))}
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.split("\ndependencies = [")[1].split("]")[0]
    declared = {line.strip().strip('",').split(">=")[0] for line in block.splitlines() if line.strip()}
    assert used - {"numpy"} - EXTRAS.keys() == declared  # numpy comes with datasets


def test_extras_are_declared() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.split("[project.optional-dependencies]")[1].split("test = [")[0]
    declared = dict(re.findall(r'^(\w+) = \["([a-z]+)', block, re.MULTILINE))
    assert {name: extra for extra, name in declared.items()} == EXTRAS


@of(MODULES)
def test_slow_libraries_are_imported_where_they_are_used(path: Path) -> None:
    top = ast.Module([node for node in tree_of(path).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert not third_party(top) & (SLOW | EXTRAS.keys())


# What stands between the flags and the first answer.
COMMAND_LINE = [*(ROOT / "minitrain/config").glob("*.py"), ROOT / "minitrain/errors.py"]
COMMAND_LINE += [ROOT / "minitrain/run/flags.py", ROOT / "minitrain/run/known_flags.py"]


@of(COMMAND_LINE)
def test_command_line_needs_no_torch(path: Path) -> None:
    assert third_party(tree_of(path)) == set()


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


@of([*MODULES, *REFERENCE_SIDES])
def test_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@of(MODULES)
def test_function_can_be_read_at_a_glance(path: Path) -> None:
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in functions if node.end_lineno - node.lineno >= 50] == []


@of(CODE)
def test_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree_of(path))


@of([*MODULES, *REFERENCE_SIDES])
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
