"""What --label_map may look like, and what is said of one that says nothing."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitrain.config.data_config import DataConfig
from minitrain.config.inference_config import EvaluateConfig
from minitrain.config.label_map import as_flag, read_label_map
from minitrain.config.train_config import TrainConfig
from minitrain.data.labels.values import check_label_map
from minitrain.data.load import load_splits
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import read_tokenizer
from minitrain.errors import MinitrainError
from minitrain.run.flags import parse


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (None, None),
        ("0=good,1=bad", {"0": "good", "1": "bad"}),
        (" 0 = good , 1=so so ", {"0": "good", "1": "so so"}),
        ('" bad"=bad,"a,b"="x=y"', {" bad": "bad", "a,b": "x=y"}),
        (r'"say \"no\""=no,"\u001b"=x', {'say "no"': "no", "\x1b": "x"}),
        ("-1=no,1=yes", {"-1": "no", "1": "yes"}),
        ('{"0": "good", "1": 0}', {"0": "good", "1": "0"}),
        ({0: "good", True: "yes"}, {"0": "good", "True": "yes"}),
        ("good= 1", {"good": "1"}),
    ],
)
def test_a_map_is_pairs_or_json_or_a_dict(given: Any, read: dict[str, str] | None) -> None:
    assert read_label_map(given) == read
    assert DataConfig(dataset="demo", label_map=given).label_map == read


def test_a_map_may_stand_in_a_file_which_is_read_at_once(tmp_path: Path) -> None:
    file = tmp_path / "map.json"
    file.write_text('\ufeff{"0": "gut", "1": "schön"}', encoding="utf-8")
    config = DataConfig(dataset="demo", label_map=str(file))  # type: ignore[arg-type]
    file.unlink()
    assert config.label_map == {"0": "gut", "1": "schön"}
    assert DataConfig(dataset="demo", label_map=json.loads(json.dumps(config.label_map))) == config


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "--label_map"),
        ("x", "expected old=new"),
        ("a=b,", "expected old=new"),
        ("a=b=c", "expected old=new"),
        ("=b", "expected old=new"),
        ("a=", "expected old=new"),
        ('a=""', "'a' becomes ''; expected names of classes"),
        ("a=b,a=c", "names 'a' twice"),
        ('{"a": "b", "a": "c"}', "names 'a' twice"),
        ("{}", "is empty"),
        ('{"a": null}', "'a' becomes None; expected names of classes"),
        ('{"a": ["b"]}', "expected names of classes"),
        ('{"a": ', "is not valid JSON"),
        ("no.json", "no.json: cannot be read (No such file or directory)"),
        ({"a": 1.5}, "'a' becomes 1.5; expected names of classes"),
        ({None: "a"}, "None becomes 'a'; expected names of classes"),
    ],
)
def test_what_is_no_map_is_an_error_that_names_the_flag(given: Any, said: str) -> None:
    for make in (read_label_map, lambda given: EvaluateConfig(run="x", label_map=given)):
        with pytest.raises(MinitrainError) as caught:
            make(given)
        assert "--label_map" in str(caught.value) and said in str(caught.value)


@pytest.mark.parametrize(("text", "said"), [(b"[1]", "expected an object"), (b"\xff", "is not UTF-8")])
def test_what_is_no_map_in_a_file_is_an_error_that_names_it(tmp_path: Path, text: bytes, said: str) -> None:
    file = tmp_path / "map.json"
    file.write_bytes(text)
    with pytest.raises(MinitrainError, match=f"--label_map {file}: .*{said}"):
        read_label_map(file)


@given(st.dictionaries(st.text(), st.text(min_size=1).map(lambda name: f"{name}x"), min_size=1, max_size=4))
def test_a_map_as_messages_write_it_is_read_back(pairs: dict[str, str]) -> None:
    flag, value = shlex.split(as_flag(pairs))
    assert flag == "--label_map" and read_label_map(value) == pairs


def test_a_negative_number_may_be_mapped_on_the_command_line() -> None:
    for words in (["--label_map", "-1=no,1=yes"], ["--label-map=-1=no,1=yes"]):
        assert parse(TrainConfig, "", words).label_map == {"-1": "no", "1": "yes"}
    assert parse(TrainConfig, "", ["--max_steps", "-1"]).max_steps == -1


def test_a_map_of_nothing_that_occurs_names_what_does(tmp_path: Path, demo_model: Path) -> None:
    train = tmp_path / "train.csv"
    train.write_text("text,label\nx,0\ny,1\n")
    with pytest.raises(MinitrainError) as caught:
        load_splits(tokenizer=read_tokenizer(demo_model), train_file=str(train), label_map={"2": "a"})
    assert "--label_map 2=a: no label of column 'label' is called '2'; the data has '0', '1'" in str(caught.value)


@pytest.mark.parametrize("value", [0, 0.0, False, "0"])
def test_a_map_finds_a_label_of_any_type_by_its_text(value: Any) -> None:
    table = Table(source="x", columns={"label": [value]}, class_names={})
    text = {False: "False"}.get(value, "0") if type(value) is bool else "0"
    check_label_map([table], "label", {text: "a"})
    with pytest.raises(MinitrainError, match="no label of column 'label' is called '9'"):
        check_label_map([table], "label", {"9": "a"})


def test_integers_with_names_are_mapped_by_them() -> None:
    table = Table(source="x", columns={"label": [0, 1]}, class_names={"label": ("neg", "pos")})
    check_label_map([table], "label", {"neg": "bad"})
    with pytest.raises(MinitrainError, match="no label of column 'label' is called '0'; the data has 'neg', 'pos'"):
        check_label_map([table], "label", {"0": "bad"})
