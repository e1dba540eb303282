"""The commands of README.md and docs/ run, shortened if they take long; output, figures and links are as shown."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_loop import write_tiny_model

ROOT = Path(__file__).parent.parent
README, PARITY, SPEED, QUALITY, SCALING, FAULTS = PAGES = [
    (ROOT / page).read_text(encoding="utf-8")
    for page in ("README.md", *(f"docs/{name}.md" for name in ("parity", "speed", "quality", "scaling", "faults")))
]
WITH_LINKS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHORT = "--max_steps 2 --per_device_eval_batch_size 64"
FEW = f"{SHORT} --max_train_samples 32 --max_eval_samples 32"
SHORTER = {
    "train.py": FEW,
    "evaluate.py": "--max_eval_samples 64",
    "parity.py": f"{SHORT} --max_train_samples 16 --max_eval_samples 9 --model tiny",
    "ladder.py": "--examples 8 --model tiny",
}
SHORTER_CODE = {
    "sampler.batches(epoch=0)": "sampler.batches(epoch=0)[:2]",
    'load_splits("demo", ': 'load_splits("demo", max_eval_samples=32, ',
    'metric_for_best_model="cost"': 'metric_for_best_model="cost", max_eval_samples=32',
}
MY_ROWS = [(f"title {i}", f"a text about topic {i % 3}", ("art", "law", "sport")[i % 3]) for i in range(40)]


def flowing(text: str) -> str:
    return " ".join(text.split())


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """The lines of all bash blocks, each once, in page order; test_docs_data.py runs those of data.md."""
    lines = "".join(block for page in PAGES for block in blocks("bash", page)).replace("\\\n", " ").splitlines()
    return list(dict.fromkeys(line.split("  #")[0].strip() for line in lines if line.strip()))


def make_train_command() -> str:
    """The command of `make train`, once everything is installed."""
    recipe = subprocess.run(["make", "-n", "train"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    line = next(line for line in recipe.replace("\\\n", " ").splitlines() if "scripts/train.py" in line)
    return re.sub(r"\s+", " ", line.replace(".venv/bin/python", "python")).strip()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts and the files that the commands name."""
    place = tmp_path_factory.mktemp("readme")
    for name in ("scripts", "examples", "Makefile"):
        (place / name).symlink_to(ROOT / name)
    write_tiny_model(place / "tiny")
    rows = [",".join(("title", "body", "topic")), *(",".join(row) for row in MY_ROWS)]
    (place / "my.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    new = [{"title": title, "body": body} for title, body, _ in MY_ROWS[:5]]
    (place / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in new), encoding="utf-8")
    return place


def environment_of(place: Path) -> dict[str, str]:
    """In which `python` and `torchrun` are those of this interpreter."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(place / "huggingface"),
        "MINITRAIN_CACHE": str(place / "cache"),
    }


def in_shell(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in `place`."""
    words = ["bash", "-c", f"set -o pipefail; {command}"]
    return subprocess.run(words, cwd=place, env=environment_of(place), text=True, capture_output=True)


def first_lines(command: str, last: str, place: Path) -> Iterator[str]:
    """What a plain command prints, up to the line that begins with `last`; it is stopped there."""
    words = shlex.split(command)
    process = subprocess.Popen(words, cwd=place, env=environment_of(place), text=True, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            yield line.rstrip("\n")
            if line.startswith(last):
                break
        process.kill()


def in_this_process(command: str, place: Path) -> None:
    """Run a plain `python SCRIPT FLAGS` here, where torch and transformers are imported already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("MINITRAIN_CACHE", str(place / "cache"))
        for name in ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "CUDA_VISIBLE_DEVICES"):  # parity.py sets these
            patch.setenv(name, os.environ.get(name, ""))
        patch.setattr(sys, "argv", shlex.split(command)[1:])
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as done:
            assert not done.code, f"{command}\n{done.code}"


@pytest.fixture(scope="module")
def demo_run(place: Path) -> Path:
    """The folder of `make train`, of two steps and few rows."""
    result = in_shell(f"{make_train_command()} {FEW}", place)
    assert result.returncode == 0, result.stderr
    return place / "runs/demo"


def test_make_help_lists_every_target_that_the_pages_name() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    for target in re.findall(r"(?:^|`)make ([a-z]+)", "\n".join(PAGES), flags=re.MULTILINE):
        assert f"make {target} " in listed, target


def test_the_sample_output_of_make_train_is_real(place: Path) -> None:
    shown = blocks("text")[0].splitlines()
    facts = [line for line in shown if line.startswith(("data ", "labels ", "lengths ", "weights "))]
    assert len(facts) == 4
    command = make_train_command()
    assert "--output_dir runs/demo " in command
    printed = list(first_lines(command.replace("runs/demo", "runs/stopped"), "weights ", place))
    for line in facts:
        assert line in printed


def test_every_command_runs_in_the_order_of_the_pages(demo_run: Path, place: Path) -> None:
    ran = [command for command in commands() if not command.startswith("make ")]
    assert len(ran) >= 9
    for command in ran:
        short = " ".join([command, *(flags for script, flags in SHORTER.items() if f"/{script}" in command)])
        if "--model" not in command and "train.py" in command:
            # The Hub's model is not available offline: the error names a way out.
            result = in_shell(short, place)
            assert result.returncode == 1
            assert "google-bert/bert-base-uncased: config.json" in result.stderr
            assert "--model demo --dataset demo" in result.stderr
        elif command.startswith("python "):
            in_this_process(short, place)
        else:
            result = in_shell(short, place)
            assert result.returncode == 0, f"{command}\n{result.stderr}"
            if command.startswith("echo"):
                assert_like_the_sample(json.loads(result.stdout))
    predictions = (place / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["body"] for line in predictions] == [body for _, body, _ in MY_ROWS[:5]]
    assert {json.loads(line)["label"] for line in predictions} <= {"art", "law", "sport"}


def assert_like_the_sample(prediction: dict[str, Any]) -> None:
    """The README's sample prediction has the fields of the real one."""
    shown = next(json.loads(text) for text in blocks("text") if text.startswith('{"text"'))
    assert list(shown) == list(prediction) and shown["text"] == prediction["text"] == "great film"
    assert list(shown["probabilities"]) == list(prediction["probabilities"]) == ["negative", "positive"]


def test_the_sample_error_is_what_such_a_row_gives(place: Path) -> None:
    shown = next(text for text in blocks("text") if text.startswith("train.py: my.csv")).strip()
    (place / "bad").mkdir()
    rows = [("title", "body", "topic"), *MY_ROWS[:2], ("third", "a text", ""), *MY_ROWS[3:]]
    (place / "bad" / "my.csv").write_text("\n".join(",".join(row) for row in rows) + "\n", encoding="utf-8")
    command = next(command for command in commands() if "my.csv" in command).replace("scripts/", "../scripts/")
    result = in_shell(f"cd bad && {command}", place)
    assert result.returncode == 1
    assert result.stderr.strip() == shown


def test_the_python_of_the_pages_runs(
    demo_run: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = [block for page in PAGES for block in blocks("python", page)]
    assert len(ran) == 4
    monkeypatch.chdir(place)
    monkeypatch.setenv("MINITRAIN_CACHE", str(place / "cache"))
    for whole in SHORTER_CODE:
        assert sum(code.count(whole) for code in ran) == 1, whole
    for code in ran:
        for whole, few in SHORTER_CODE.items():
            code = code.replace(whole, few)
        exec(code, {"__name__": "__main__"})
        printed = capsys.readouterr().out
        assert "accuracy" in printed or "'label': '" in printed or float(printed) <= 1
    assert (place / "runs/by-hand/config.json").is_file()


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", WITH_LINKS, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if not link.startswith("https://"):
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_reading_order_names_files_with_their_lines() -> None:
    rows = re.findall(r"^\| (\d+) \| (\[\S+\]\((minitrain/\S+)\) \| .*)", README, flags=re.MULTILINE)
    assert 15 <= len(rows) <= 20
    lines = [len((ROOT / path).read_text(encoding="utf-8").splitlines()) for _, _, path in rows]
    right = "\n".join(f"| {count} | {rest}" for count, (_, rest, _) in zip(lines, rows, strict=True))
    near = all(abs(int(shown) - count) <= 0.1 * count for (shown, _, _), count in zip(rows, lines, strict=True))
    assert near, f"the table should say:\n{right}"


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 250


KINDS = {
    "reference": "`--kernels reference`",
    "fast": "`--kernels fast`, the default",
}


def test_the_table_of_seeds_says_what_the_result_file_says() -> None:
    kinds = json.loads((ROOT / "benchmarks/seeds.json").read_text(encoding="utf-8"))["kinds"]
    names = [f"{split} {metric}" for split in ("validation", "test") for metric in ("accuracy", "f1")]
    rows = []
    for kind, meaning in KINDS.items():
        cells = [f"{kinds[kind][name]['mean']:.4f} ± {kinds[kind][name]['deviation']:.4f}" for name in names]
        rows.append(f"| {meaning} | {' | '.join(cells)} |")
        assert all(len(kinds[kind][name]["by_seed"]) == 5 for name in names)
        assert min(kinds[kind]["validation accuracy"]["by_seed"].values()) > 0.75
    assert kinds.keys() == KINDS.keys() and "\n".join(rows) in QUALITY


def test_the_result_of_make_train_is_that_of_its_file() -> None:
    demo = json.loads((ROOT / "benchmarks/demo.json").read_text(encoding="utf-8"))
    accuracy = f"{demo['results']['test']['accuracy']:.4f}"
    assert f"accuracy of {accuracy} on the 1,000 test reviews" in QUALITY
    assert f"accuracy              {accuracy} " in blocks("text")[0]
    assert demo["results"]["test"]["accuracy"] >= 0.83


def parity_row(file: Path) -> str:
    """The table row of a run, from its JSON: how many values are bit-equal."""
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["all_equal"] is True, file

    def cell(*starts: str) -> str:
        found = [each for each in result["comparisons"] if each["what"].startswith(starts)]
        return f"{min(each['equal'] for each in found)} of {max(each['total'] for each in found)}"

    steps = cell("loss of", "gradient norm of", "learning rate of")
    assert steps == f"{result['steps']} of {result['steps']}"
    cells = [steps, cell("evaluation: "), cell("predictions, validation"), cell("final weights")]
    return f"| [{file.stem}](../benchmarks/parity/{file.name}) | {' | '.join(cells)} |"


def ladder_row(rung: dict[str, Any], first: bool) -> str:
    flags = "" if first else f"`{rung['flags']}`"
    count = f"{rung['equal']} of {rung['steps']}"
    return f"| {rung['change']} | {flags} | {count} | {rung['largest_difference']:.1e} |"


def test_the_parity_table_says_what_the_result_files_say() -> None:
    listed = re.findall(r"^    compare (\S+) ", (ROOT / "benchmarks/parity.sh").read_text(encoding="utf-8"), re.M)
    rows = [parity_row(ROOT / f"benchmarks/parity/{name}.json") for name in listed]
    assert len(rows) == len(list((ROOT / "benchmarks/parity").glob("*.json"))) == 22
    assert "\n".join(rows) in PARITY
    assert parity_row(ROOT / "benchmarks/parity/mrpc-seed42.json").count("1377 of 1377") == 1
    assert "of 1,377 steps on MRPC" in README


def test_the_ladder_of_the_readme_is_the_one_that_was_climbed() -> None:
    result = json.loads((ROOT / "benchmarks/ladder.json").read_text(encoding="utf-8"))
    assert result["all_equal"] is True
    rows = [ladder_row(rung, first=i == 0) for i, rung in enumerate(result["rungs"])]
    assert "\n".join(rows) in PARITY


SPEEDS = {
    "train_fp32_ratio": "training in fp32, against Trainer's defaults",
    "train_bf16_ratio": "training in bf16, against Trainer's defaults",
    "train_bf16_ratio_vs_best": "training in bf16, against Trainer's fastest flags",
    "evaluate_ratio": "evaluation in fp32, against `Trainer.predict`",
    "evaluate_bf16_ratio": "evaluation in bf16, against the same in fp32",
    "evaluate_bf16_ratio_vs_best": "evaluation in bf16, against Trainer's in bf16",
    "predict_ratio": "labels for texts in fp32, against `pipeline`",
    "predict_bf16_ratio": "labels for texts in bf16, against the same in fp32",
    "startup_ratio": "time to the first step, as a share of Trainer's",
    "memory_ratio": "peak memory of training, as a share of Trainer's",
    "ceiling_share": "share of the machine's measured matrix ceiling, whole steps in fp32",
    "ceiling_share_bf16": "the same in bf16",
}


def test_the_speed_table_says_what_the_result_file_says() -> None:
    result = json.loads((ROOT / "benchmarks/x86_64-2cores.json").read_text(encoding="utf-8"))
    rows = []
    for name, meaning in SPEEDS.items():
        low, high = result["spread"][name]
        rows.append(f"| {meaning} | {result[name]:.2f} | {low:.2f} | {high:.2f} |")
    assert "\n".join(rows) in SPEED
    assert result["spread"].keys() == SPEEDS.keys() and len(result["rounds"]) == 3
    faster = [f"{result[f'{name}_ratio']:.2f}x as fast" for name in ("train_fp32", "train_bf16", "evaluate")]
    shares = [f"{result[f'{name}_ratio']:.2f} of Trainer's" for name in ("startup", "memory")]
    assert f"| {' | '.join(faster + shares)} |" in README


def test_the_table_of_larger_batches_and_models_says_what_the_result_files_say() -> None:
    names = ("x86_64-2cores-batch32", "x86_64-2cores-base")
    larger, base = (json.loads((ROOT / f"benchmarks/{name}.json").read_text(encoding="utf-8")) for name in names)
    rows = [f"| {meaning} | {larger[name]:.2f} | {base[name]:.2f} |" for name, meaning in SPEEDS.items()]
    assert "\n".join(rows) in SPEED
    assert larger["settings"]["per_device_train_batch_size"] == 32
    assert (base["settings"]["model"], base["settings"]["steps"]) == ("base", 150)


def test_the_table_of_a_processor_without_bf16_says_what_the_result_files_say() -> None:
    files = [ROOT / f"benchmarks/x86_64-2cores-avx2{kind}.json" for kind in ("", "-batch32", "-base")]
    small, larger, base = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    rows = []
    for name, meaning in SPEEDS.items():
        if "bf16" not in name:
            low, high = small["spread"][name]
            cells = f"{small[name]:.2f} ({low:.2f} to {high:.2f}) | {larger[name]:.2f} | {base[name]:.2f}"
            rows.append(f"| {meaning} | {cells} |")
    assert len(rows) == 6 and "\n".join(rows) in SPEED
    products_alone = small["train_fp32_ratio"] / small["ceiling_share"]
    assert f"would make a step at batch 8 {products_alone:.1f} times as fast as Trainer's" in flowing(SPEED)
    assert len(small["rounds"]) == 3 and small["machine"]["capability"] == "AVX2"
    assert larger["settings"]["per_device_train_batch_size"] == 32 and base["settings"]["model"] == "base"


def test_the_cost_of_saving_is_that_of_its_file() -> None:
    result = json.loads((ROOT / "benchmarks/saving.json").read_text(encoding="utf-8"))
    assert f"costs the demo {result['share']:.2%} of its time" in flowing(FAULTS)
    assert result["share"] == sum(result["seconds_of_saves"]) / result["seconds_of_training"] < 0.02


def test_the_growth_table_says_what_the_result_file_says() -> None:
    result = json.loads((ROOT / "benchmarks/growth.json").read_text(encoding="utf-8"))
    rows = []
    names = {
        "train_examples_per_second": ".1f",
        "private_memory_mb": ".0f",
        "reading_memory_mb": ".0f",
        "prepare_seconds": ".1f",
    }
    for size, (first, second) in result["rounds"].items():
        cells = [f"{run[name]:{form}}" for name, form in names.items() for run in (first, second)]
        rows.append(f"| {int(size):,} | {' | '.join(cells)} |")
    assert len(rows) == 4 and "\n".join(rows) in SPEED
    assert f"has {result['slowest_to_fastest_examples']:.2f} of the fastest's examples/s" in flowing(SPEED)
    assert f"a million examples take {result['memory_growth_mb']:.0f} MB more than 4,000" in flowing(SPEED)


def test_the_tables_of_docs_scaling_are_those_that_its_script_prints() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/scaling.py")], text=True, capture_output=True, check=True
    )
    page = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
    tables = done.stdout.strip().split("\n\n")
    assert len(tables) == 2 and all(table in page for table in tables)
    kinds = json.loads((ROOT / "benchmarks/processes.json").read_text(encoding="utf-8"))["kinds"]
    alone, streams = kinds["1 process"], kinds["1 process, streams of examples"]
    assert f"{streams['milliseconds'] / alone['milliseconds'] - 1:.0%} of a step" in flowing(SCALING)
