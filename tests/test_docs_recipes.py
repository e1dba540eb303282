"""Every command of docs/recipes.md runs, in the order of the page, on small files of the names in it."""

import json
import re
import shlex
from pathlib import Path

import pytest
from test_loop import write_tiny_model

from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.config.train_config import TrainConfig
from minitrain.run.evaluate import evaluate_run
from minitrain.run.flags import parse
from minitrain.run.main import train
from minitrain.run.predict import predict_run

PAGE = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
SHORT = ["--device", "cpu", "--num_train_epochs", "1"]
OUTPUTS = {  # what the commands of a section must leave behind, beside a saved model for each run
    "Rare classes": ["runs/threshold/calibration.json", "labelled.csv"],
    "Several labels a text": ["runs/tags/calibration.json", "tagged.jsonl"],
    "Long documents": ["documents.csv"],
    "Few rows": ["runs/folds/predictions.jsonl", "runs/seeds/results.json"],
    "Free GPUs": ["runs/fp16/results.json"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    write_tiny_model(folder / "demo")
    texts = [f"a {('poor', 'fine')[i % 2]} film, number {i}" for i in range(40)]
    kinds = ["spam" if i % 5 == 0 else "ham" for i in range(40)]
    for name in ("imbalanced.csv", "later.csv"):
        rows = [f'"{text}",{kind}' for text, kind in zip(texts, kinds, strict=True)]
        (folder / name).write_text("\n".join(["text,label", *rows]) + "\n")
    tags = [[name for name, step in (("toxic", 2), ("insult", 3)) if i % step == 0] for i in range(40)]
    records = [{"text": text, "tags": own} for text, own in zip(texts, tags, strict=True)]
    (folder / "comments.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    rows = [f'"{text}","{",".join(own)}"' for text, own in zip(texts, tags, strict=True)]
    (folder / "comments.csv").write_text("\n".join(["text,tags", *rows]) + "\n")
    rows = [f'"{text}",{int("toxic" in own)},{int("insult" in own)}' for text, own in zip(texts, tags, strict=True)]
    (folder / "columns.csv").write_text("\n".join(["text,toxic,insult", *rows]) + "\n")
    rows = [f'"{" ".join([text] * 20)}",{kind}' for text, kind in zip(texts, kinds, strict=True)]
    (folder / "long.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    few = [f'"{text}",{("bad", "good")[i % 2]},author {i // 4}' for i, text in enumerate(texts)]
    (folder / "few.csv").write_text("\n".join(["text,label,author", *few]) + "\n")
    (folder / "new.csv").write_text("id,text\n7,a fine film\n8,a poor film\n")
    return folder


def commands(section: str) -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", SECTIONS[section], re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def test_every_section_is_tried() -> None:
    assert set(SECTIONS) == set(OUTPUTS)
    assert all(commands(section) for section in SECTIONS)


@pytest.mark.filterwarnings("ignore:.* is 0/0")  # one epoch on 40 rows
@pytest.mark.parametrize("section", OUTPUTS)
def test_the_commands_of_a_recipe_run(section: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for _, script, *flags in commands(section):
        if script == "scripts/train.py":
            flags[flags.index("--model") + 1] = str(place / "demo")
            config = parse(TrainConfig, "", [*flags, *SHORT])
            results = train(config)
            assert results["config"]["output_dir"] == config.output_dir
            kept = config.folds is None and config.seeds is None
            assert (Path(str(config.output_dir)) / "model.safetensors").is_file() == kept
        elif script == "scripts/evaluate.py":
            [scored] = evaluate_run(parse(EvaluateConfig, "", flags, positional=("run",))).values()
            assert scored.examples == 40 and "ece" in scored.metrics
        else:
            predict_run(parse(PredictConfig, "", flags, positional=("run",)))
    for name in OUTPUTS[section]:
        assert (place / name).is_file(), name
