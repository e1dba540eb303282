"""The command line: what it accepts, what it says to what it does not, and that it answers without torch."""

import re
import subprocess
import sys
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from ladder import LadderConfig
from transformers import TrainingArguments

from minitrain.config.compare_config import CompareConfig
from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.config.long_texts import OF_WINDOWS
from minitrain.config.options import flag
from minitrain.config.push_config import PushConfig
from minitrain.config.report_config import ReportConfig
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run.flags import command, hint, parse
from minitrain.run.known_flags import ANSWERS, RENAMED
from minitrain.training import ranking_metrics

SCRIPTS = Path(__file__).parents[2] / "scripts"


def train(*words: str) -> TrainConfig:
    return parse(TrainConfig, "", words)


def refusal(capsys: pytest.CaptureFixture[str], *words: str, config: Any = TrainConfig) -> str:
    """What is said on standard error to flags that are wrong."""
    with pytest.raises(SystemExit) as caught:
        parse(config, "", words, positional=("run",) if config in (EvaluateConfig, PredictConfig) else ())
    said = capsys.readouterr()
    assert caught.value.code == 2 and said.out == "" and "--help lists the flags" in said.err
    return said.err


# --- What is accepted ---


def test_no_flags_give_the_defaults() -> None:
    assert train() == TrainConfig()


def test_every_field_is_a_flag_of_the_same_name() -> None:
    for config in (TrainConfig, EvaluateConfig, PredictConfig):
        spoken: dict[Any, tuple[str, Any]] = {
            int: ("5", 5),
            float: ("0.5", 0.5),
            str: ("x", "x"),
            bool: ("true", True),
            tuple: ("a,b", ("a", "b")),
            dict: ("a=b,c=d", {"a": "b", "c": "d"}),
        }
        for spec in fields(config):
            if spec.name == "run":
                continue
            choices = spec.metadata["choices"]
            kind = next(kind for kind in (tuple, dict, bool, int, float, str) if kind.__name__ in str(spec.type))
            word, value = spoken[kind]
            if choices:
                word = value = choices[-1]
            if "str | tuple" in str(spec.type):  # names of files are told apart where they are read
                word = value = "a,b"
            special: dict[str, tuple[str, Any]] = {
                "lr_scheduler_type": ("cosine", "cosine"),
                "ddp_timeout": ("1.5", 1.5),
                "freeze": ("5", "5"),
                "class_weights": ("a=2,b=1", {"a": 2.0, "b": 1.0}),
                "output": ("rows.csv", "rows.csv"),
                "delimiter": (";", ";"),
                "encoding": ("ascii", "ascii"),
                "seeds": ("42,1", (42, 1)),
                "report_to": ("wandb,mlflow", ("wandb", "mlflow")),
            }
            word, value = special.get(spec.name, (word, value))
            partners: dict[str, tuple[str, ...]] = {
                "eval_steps": ("--eval_strategy", "steps"),
                "save_steps": ("--save_strategy", "steps"),
                "keep_activations": ("--freeze", "5"),
                "keep_columns": ("--output", "rows.csv"),
                "hub_private": ("--push_to_hub", "me/x"),
                "output_format": ("--output", "rows.csv"),
                **dict.fromkeys(OF_WINDOWS, ("--long_texts", "windows")),
                "group_column": ("--folds", "5"),
                "keep_folds": ("--folds", "5"),
            }
            if config is PredictConfig:
                partners["resume"] = ("--input", "new.csv", "--output", "rows.csv")
            needs = partners.get(spec.name, ())
            run = () if config is TrainConfig else ("folder",)
            made = parse(config, "", [*run, f"--{spec.name}", word, *needs], positional=("run",) if run else ())
            assert getattr(made, spec.name) == value and type(getattr(made, spec.name)) is type(value), spec.name


@pytest.mark.parametrize(
    "words",
    [
        ["--learning_rate", "3e-5"],
        ["--learning-rate", "3e-5"],
        ["--learning_rate=3e-5"],
        ["--learning-rate=3e-5"],
    ],
)
def test_dashes_and_an_equals_sign_are_accepted(words: list[str]) -> None:
    assert train(*words) == TrainConfig(learning_rate=3e-5)


def test_dashes_in_values_stay() -> None:
    config = train("--model", "a-b/c-d", "--output-dir=x-y/--z=a-b", "--text-columns", "col-a,col-b")
    assert (config.model, config.output_dir, config.text_columns) == ("a-b/c-d", "x-y/--z=a-b", ("col-a", "col-b"))


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--bf16"], True),
        (["--bf16", "true"], True),
        (["--bf16", "True"], True),
        (["--bf16=1"], True),
        (["--bf16", "yes"], True),
        (["--bf16", "false"], False),
        (["--bf16=False"], False),
        (["--bf16", "0"], False),
        (["--bf16", "no"], False),
        (["--bf16", "--seed", "3"], True),
        ([], False),
    ],
)
def test_a_boolean_stands_bare_or_with_its_value(words: list[str], value: bool) -> None:
    assert train(*words).bf16 is value
    assert train("--load_best_model_at_end", *words, "--greater-is-better", "false").greater_is_better is False


def test_numbers_keep_their_type() -> None:
    assert train("--warmup_steps", "100").warmup_steps == 100
    assert train("--warmup_steps", "0.1").warmup_steps == 0.1
    assert train("--max_steps", "-1").max_steps == -1
    assert train("--learning_rate", "1e-3").learning_rate == 0.001


def test_columns_are_separated_by_commas_and_trimmed() -> None:
    assert train("--text_columns", "title, body").text_columns == ("title", "body")
    assert train("--text_columns", "only one").text_columns == ("only one",)


def test_a_positional_may_stand_before_or_after_the_flags() -> None:
    expected = PredictConfig(run="runs/mine", input="new.csv")
    for words in (["runs/mine", "--input", "new.csv"], ["--input", "new.csv", "runs/mine"]):
        assert parse(PredictConfig, "", words, positional=("run",)) == expected


# --- What is not ---


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("--learning_rat", "--learning_rate"),
        ("--learningrate", "--learning_rate"),
        ("--num-train-epoch", "--num_train_epochs"),
        ("--eval_stratgy=epoch", "--eval_strategy"),
        ("--out_dir", "--output_dir"),
    ],
)
def test_an_unknown_flag_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str], wrong: str, meant: str
) -> None:
    said = refusal(capsys, wrong, "5")
    assert f"did you mean {meant}?" in said and wrong.split("=")[0].lstrip("-").split("-")[0] in said


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("--beta1", "adam_beta1"),
        ("--warmup", "warmup_steps"),
        ("--output", "output_dir"),
        ("--epoch", "num_train_epochs"),
    ],
)
def test_a_part_of_a_flag_and_a_slip_in_another_programs_are_understood(
    capsys: pytest.CaptureFixture[str], wrong: str, meant: str
) -> None:
    assert f"did you mean --{meant}?" in refusal(capsys, wrong, "5")


TRIED = ["with_tracking", "do_train", "version", "quiet", "auto_find_batch_size", "fp16_opt_level"]
TRIED += ["hub_strategy", "logging_dir", "deepspeed", "fsdp", "num_workers", "do_predict"]


@pytest.mark.parametrize("name", TRIED)
@pytest.mark.parametrize("dashes", [False, True])
def test_a_flag_that_is_nowhere_here_is_answered_by_what_to_do(
    capsys: pytest.CaptureFixture[str], name: str, dashes: bool
) -> None:
    said = refusal(capsys, f"--{name.replace('_', '-') if dashes else name}=x")
    assert f"no flag --{name}; {ANSWERS[name]}\n" in said and "did you mean" not in said


def test_every_argument_of_trainer_is_a_flag_or_answered() -> None:
    known = [spec.name for spec in fields(TrainConfig)]
    of_trainer = {spec.name for spec in fields(TrainingArguments)} - set(known)
    assert len(of_trainer) > 70
    assert of_trainer - set(RENAMED) - set(ANSWERS) == set()
    assert all(hint(name, known) and "did you mean" not in hint(name, known) for name in of_trainer)


def test_answers_name_flags_that_there_are_and_are_given_where_these_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ladder = {"examples", "model", "dataset", "subset", "json"}
    known = {spec.name for spec in fields(TrainConfig)}
    for name, answer in ANSWERS.items():
        named = set(re.findall(r"--(\w+)", answer)) - {"nproc_per_node"}
        assert named <= known or named <= ladder, name
        assert len(answer) <= 116 and not answer.endswith("."), name
        assert (name in known) == (named == {"examples"}), f"{name} is a flag of train.py"
    assert not set(ANSWERS) & set(RENAMED)
    assert "gradient_accumulation" not in refusal(capsys, "r", "--auto_find_batch_size", config=PredictConfig)
    assert "; --bf16 or --fp16 computes in 16" in refusal(capsys, "r", "--mixed_precision", config=PredictConfig)


@pytest.mark.parametrize("name", ["max_steps", "num_train_epochs", "max_train_samples"])
def test_the_ladder_says_what_its_size_is(capsys: pytest.CaptureFixture[str], name: str) -> None:
    said = refusal(capsys, f"--{name}", "5", config=LadderConfig)
    assert f"no flag --{name}; --examples sets the training rows" in said


def test_a_text_is_not_taken_for_the_name_of_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "runs/mine", "--text", "great film", config=PredictConfig)
    assert "no flag --text; " in said and "did you mean" not in said and "standard input" in said


def test_what_is_given_without_a_flag_is_not_offered_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "--run", "runs/mine", config=EvaluateConfig)
    assert "no flag --run; pass its value alone, before the flags\n" in said
    assert "did you mean" not in refusal(capsys, "runs/mine", "--runs", "5", config=EvaluateConfig)


def test_a_flag_like_no_other_is_named_without_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "--xyzzy", "5")
    assert "no flag --xyzzy" in said and "did you mean" not in said


def test_a_beginning_of_a_flag_is_not_taken_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no flag --learn" in refusal(capsys, "--learn", "5")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("evaluation_strategy", "eval_strategy"),
        ("tokenizer", "model"),
        ("model_name_or_path", "model"),
        ("task_name", "subset"),
        ("validation_file", "eval_file"),
        ("max_seq_length", "max_length"),
        ("warmup_ratio", "warmup_steps"),
        ("lr", "learning_rate"),
        ("text_column_delimiter", "join"),
        ("test_size", "eval_fraction"),
        ("sep", "delimiter"),
    ],
)
def test_a_renamed_flag_is_answered_with_its_name_of_today(
    capsys: pytest.CaptureFixture[str], old: str, new: str
) -> None:
    for word in (f"--{old}", f"--{old.replace('_', '-')}", f"--{old}=5"):
        assert f"no flag --{old}; here it is called --{new}\n" in refusal(capsys, word, "5")


def test_every_old_name_is_gone_and_every_new_one_exists() -> None:
    known = {spec.name for config in (TrainConfig, EvaluateConfig, PredictConfig) for spec in fields(config)}
    assert set(RENAMED.values()) <= known
    assert not set(RENAMED) & known


def test_a_name_of_today_that_the_script_does_not_have_is_not_offered(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "runs/mine", "--lr", "5", config=PredictConfig)
    assert "no flag --lr" in said and "learning_rate" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--learning_rate", "fast"], "--learning_rate: invalid number value: 'fast'"),
        (["--seed", "1.5"], "--seed: invalid int value: '1.5'"),
        (["--bf16", "maybe"], "--bf16: 'maybe' is neither true nor false"),
        (
            ["--text_columns", "a,,b"],
            "--text_columns: 'a,,b' has an empty name, or is no JSON list of names; write a,b",
        ),
        (["--eval_strategy", "never"], "--eval_strategy: invalid choice: 'never' (choose from "),
        (["--learning_rate"], "--learning_rate: expected one argument"),
        (["stray"], "'stray' belongs to no flag"),
        (["--seed", "1", "stray"], "'stray' belongs to no flag"),
        (["-x"], "no flag -x"),
        (["--learning_rate", "-3"], "--learning_rate is -3; expected at least 0.0"),
        (["--learning_rate", "nan"], "--learning_rate is nan"),
        (["--eval_strategy", "steps"], "--eval_strategy steps needs --eval_steps N"),
    ],
)
def test_a_wrong_value_is_answered_with_its_flag(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert said in refusal(capsys, *words)


def test_a_missing_positional_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "the following arguments are required: run" in refusal(capsys, config=EvaluateConfig)


@pytest.mark.parametrize("config", [TrainConfig, EvaluateConfig, PredictConfig])
def test_help_names_every_flag_with_its_default(capsys: pytest.CaptureFixture[str], config: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(config, "What it does.", ["--help"], positional=() if config is TrainConfig else ("run",))
    said = capsys.readouterr().out
    assert caught.value.code == 0 and "What it does." in said
    for spec in fields(config):
        assert (f"--{spec.name} " if spec.name != "run" else "RUN") in said
    flat = " ".join(said.split())
    assert "passes over the training data (default: 3.0)" in flat or config is not TrainConfig


# --- A script's main ---


@dataclass(frozen=True, kw_only=True)
class Small:
    number: int = flag(1, "a number")


@pytest.mark.parametrize(
    ("error", "code"),
    [(MinitrainError("own.csv, row 3: no text"), "small.py: own.csv, row 3: no text"), (KeyboardInterrupt(), 130)],
)
def test_a_command_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int | str
) -> None:
    def fails(config: Small) -> None:
        assert config.number == 2
        raise error

    monkeypatch.setattr(sys, "argv", ["scripts/small.py", "--number", "2"])
    with pytest.raises(SystemExit) as caught:
        command(Small, fails, "")
    assert caught.value.code == code


def test_output_into_a_closed_pipe_ends_without_a_traceback() -> None:
    code = (
        "import sys; from minitrain.run.flags import command\n"
        "from minitrain.config.inference_config import EvaluateConfig\n"
        "sys.argv = ['many.py', 'folder']\n"
        "command(EvaluateConfig, lambda config: [print('x' * 999) for _ in range(9999)], '', positional=('run',))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert (process.wait(30), process.stderr.read()) == (141, b"")


# --- At once ---


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "predict.py", "compare.py", "report.py"])
@pytest.mark.parametrize(
    "words", [["--help"], ["runs/mine", "--evaluation_strategy", "epoch"]], ids=["help", "wrong"]
)
def test_help_and_a_wrong_flag_answer_at_once_and_without_torch(script: str, words: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", str(SCRIPTS / script), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    imported = {
        line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")
    }
    assert "minitrain.run.flags" in imported and len(imported) < 250  # torch alone brings 1,500
    assert not {"torch", "numpy", "datasets", "tokenizers", "huggingface_hub"} & imported
    if words == ["--help"]:
        assert done.returncode == 0 and "usage:" in done.stdout
    else:
        assert done.returncode == 2 and "no flag --evaluation_strategy" in done.stderr


@pytest.mark.parametrize(
    "config, positional, usage",
    [
        (CompareConfig, ("runs",), "RUN RUN... [--flag value ...]"),
        (PushConfig, ("run", "name"), "RUN NAME [--flag value ...]"),
        (ReportConfig, ("run",), "RUN"),
    ],
)
def test_the_usage_names_each_value_and_flags_only_if_there_are_some(
    config: Any, positional: tuple[str, ...], usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(config, "Look.", ["--help"], positional)
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("usage: ") and first.split(" ", 2)[2] == usage


def test_a_full_disk_behind_standard_output_is_said_without_a_traceback(tmp_path: Path) -> None:
    script = tmp_path / "lines.py"
    script.write_text(
        "from minitrain.run.flags import command\n"
        "from minitrain.config.inference_config import PredictConfig\n"
        "command(PredictConfig, lambda config: print('a line', flush=True), 'Print.', positional=('run',))\n"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, script, "runs/mine"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    said = "lines.py: output cannot be written (No space left on device); make room\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_warning_shows_no_line_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warnings.formatwarning", warnings.formatwarning)
    monkeypatch.setattr("sys.argv", ["train.py"])
    command(TrainConfig, lambda _: None, "")
    ours = warnings.formatwarning("roc_auc is NaN", UserWarning, ranking_metrics.__file__, 37)
    assert ours == "WARNING  roc_auc is NaN\n"
    other = warnings.formatwarning("of another library", UserWarning, __file__, 1)
    assert other.startswith(f"{__file__}:1: UserWarning: of another library\n")
