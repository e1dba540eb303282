"""Tokenized splits against transformers' tokenizer and collator on real data, and the choices of `load_splits`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, DataCollatorWithPadding

from minitrain.data.batch import collate
from minitrain.data.dataset import Split, Splits
from minitrain.data.labels.ids import Labels
from minitrain.data.load import load_splits, tokenize
from minitrain.data.splits import GLUE_COLUMNS
from minitrain.data.tables.load import load_tables
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import Tokenizer, read_tokenizer
from minitrain.errors import MinitrainError

FIRST_EIGHT = [50, 59, 47, 67, 59, 50, 62, 32]  # of MRPC's training pairs, as the Hugging Face course prints them


@pytest.fixture(scope="module")
def tokenizer(demo_model: Path) -> Tokenizer:
    return read_tokenizer(demo_model)


@pytest.fixture(scope="module")
def reference(demo_model: Path) -> Any:
    """The same folder's tokenizer in transformers."""
    return AutoTokenizer.from_pretrained(str(demo_model))


@pytest.fixture(scope="module")
def mrpc(glue: Path, tokenizer: Tokenizer) -> Splits:
    return load_splits(str(glue), "mrpc", tokenizer=tokenizer)


def jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def reviews(path: Path, count: int) -> str:
    """A training file whose every text is another."""
    return jsonl(path, [{"text": f"number {i}", "label": i % 2} for i in range(count)])


def texts_of(split: Split, tokenizer: Tokenizer) -> list[str]:
    rows = [tokenizer.tokens(split[i].input_ids[1:-1]) for i in range(len(split))]
    return [" ".join(str(token) for token in row).replace(" ##", "") for row in rows]


# --- Real data ---


def test_mrpc_has_its_sizes_names_and_the_lengths_that_the_course_prints(mrpc: Splits) -> None:
    assert (len(mrpc.train), len(mrpc.evaluation["validation"]), len(mrpc.test["test"])) == (3668, 408, 1725)
    assert mrpc.train.lengths[:8] == FIRST_EIGHT
    assert collate([mrpc.train[row] for row in range(8)]).input_ids.shape == (8, 67)
    assert mrpc.labels == Labels(names=("not_equivalent", "equivalent"))
    assert (mrpc.task, mrpc.text_columns, mrpc.label_column) == ("mrpc", ("sentence1", "sentence2"), "label")
    assert (mrpc.train.truncated, mrpc.train.blank, mrpc.notes) == (0, 0, [])


@pytest.mark.parametrize("max_length", [None, 48])
def test_every_training_pair_of_mrpc_is_tokenized_as_transformers_does(
    glue: Path, tokenizer: Tokenizer, reference: Any, max_length: int | None
) -> None:
    table = load_tables(str(glue), "mrpc")["train"]
    split = tokenize(table, tokenizer, ("sentence1", "sentence2"), max_length=max_length)
    texts = [table.column(name)[:] for name in ("sentence1", "sentence2")]
    expected = reference(*texts, truncation=True, max_length=max_length)
    ours = [split[row] for row in range(len(split))]
    assert [example.input_ids for example in ours] == expected["input_ids"]
    assert [example.token_type_ids for example in ours] == expected["token_type_ids"]
    if max_length is not None:
        whole = reference(*texts)["input_ids"]
        assert split.truncated == sum(len(row) > max_length for row in whole) > 500


@pytest.mark.parametrize("multiple", [None, 8])
def test_padded_batches_equal_those_of_the_reference_collator(
    glue: Path, mrpc: Splits, reference: Any, multiple: int | None
) -> None:
    table = load_tables(str(glue), "mrpc")["train"]
    texts = [table.column(name)[:] for name in ("sentence1", "sentence2")]
    encoded, labels = reference(*texts, truncation=True), table.column("label")[:]
    collator = DataCollatorWithPadding(reference, pad_to_multiple_of=multiple)
    for start in range(0, len(table), 8):
        rows = range(start, min(start + 8, len(table)))
        theirs = collator([{k: v[row] for k, v in encoded.items()} | {"label": labels[row]} for row in rows])
        ours = collate([mrpc.train[row] for row in rows], reference.pad_token_id, multiple)
        assert ours.labels is not None
        for name, tensor in {**ours.inputs, "labels": ours.labels}.items():
            assert torch.equal(tensor, theirs[name]) and tensor.dtype == theirs[name].dtype, name


def test_stsb_is_regression_with_its_own_scores(glue: Path, tokenizer: Tokenizer) -> None:
    splits = load_splits(str(glue), "stsb", tokenizer=tokenizer)
    assert (splits.task, splits.labels) == ("stsb", Labels(names=None))
    assert (len(splits.train), len(splits.evaluation["validation"]), splits.test) == (5749, 1500, {})
    assert splits.train.labels is not None and splits.train.labels.dtype == torch.float32
    expected = load_tables(str(glue), "stsb")["train"].column("label")[:]
    assert torch.equal(splits.train.labels, torch.tensor(expected, dtype=torch.float32))


# --- Columns ---

# The features of nyu-mll/glue, in the Hub's order; the texts are what has no fixed type.
GLUE_FEATURES = {
    "cola": ["sentence", "label", "idx"],
    "sst2": ["sentence", "label", "idx"],
    "mrpc": ["sentence1", "sentence2", "label", "idx"],
    "stsb": ["sentence1", "sentence2", "label", "idx"],
    "qqp": ["question1", "question2", "label", "idx"],
    "mnli": ["premise", "hypothesis", "label", "idx"],
    "qnli": ["question", "sentence", "label", "idx"],
    "rte": ["sentence1", "sentence2", "label", "idx"],
    "wnli": ["sentence1", "sentence2", "label", "idx"],
}


@pytest.fixture(scope="module")
def nine_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two rows of every GLUE task, laid out as on the Hub."""
    folder = tmp_path_factory.mktemp("glue")
    configs = []
    for task, columns in GLUE_FEATURES.items():
        kinds = ("validation_matched", "validation_mismatched") if task == "mnli" else ("validation",)
        files = "".join(f"  - split: {split}\n    path: {task}.jsonl\n" for split in ("train", *kinds))
        configs.append(f"- config_name: {task}\n  data_files:\n{files}")
        jsonl(
            folder / f"{task}.jsonl",
            [{c: {"label": row, "idx": row}.get(c, f"{c} {row}") for c in columns} for row in range(2)],
        )
    (folder / "README.md").write_text(f"---\nconfigs:\n{''.join(configs)}---\n")
    return folder


@pytest.mark.parametrize("task", GLUE_FEATURES)
def test_a_glue_task_knows_its_text_columns(nine_tasks: Path, tokenizer: Tokenizer, task: str) -> None:
    splits = load_splits(str(nine_tasks), task, tokenizer=tokenizer)
    expected = tuple(name for name in GLUE_FEATURES[task] if name not in ("label", "idx"))
    assert (splits.text_columns, splits.task) == (expected, task)
    assert GLUE_COLUMNS.keys() == GLUE_FEATURES.keys()
    row = " [SEP] ".join(f"{name} 1" for name in expected)
    assert splits.train[1].input_ids == tokenizer(row)[0].input_ids
    assert splits.labels.problem_type == ("regression" if task == "stsb" else "single_label_classification")
    names = ["validation_matched", "validation_mismatched"] if task == "mnli" else ["validation"]
    assert list(splits.evaluation) == names


def test_the_only_text_column_is_found_and_two_must_be_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    one = jsonl(tmp_path / "one.jsonl", [{"id": i, "review": f"r {i}", "label": "ab"[i]} for i in range(2)])
    assert load_splits(tokenizer=tokenizer, train_file=one).text_columns == ("review",)
    two = jsonl(tmp_path / "two.jsonl", [{"title": "t", "body": "b", "label": i} for i in range(2)])
    with pytest.raises(MinitrainError, match="the columns are title, body, label; pass --text_columns a"):
        load_splits(tokenizer=tokenizer, train_file=two)
    splits = load_splits(tokenizer=tokenizer, train_file=two, text_columns=("body", "title"))
    assert texts_of(splits.train, tokenizer) == ["b [SEP] t"] * 2
    with pytest.raises(MinitrainError, match=r"two\.jsonl, line 1: has no field 'text'; it has title, body, label"):
        load_splits(tokenizer=tokenizer, train_file=two, text_columns=("text",))
    with pytest.raises(MinitrainError, match="--text_columns title,body,label: expected one or two columns"):
        load_splits(tokenizer=tokenizer, train_file=two, text_columns=("title", "body", "label"))


def test_another_label_column_may_be_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"text": f"t {i}", "topic": "ab"[i]} for i in range(2)])
    splits = load_splits(tokenizer=tokenizer, train_file=path, label_column="topic")
    assert (splits.labels.names, splits.label_column, splits.text_columns) == (("a", "b"), "topic", ("text",))
    with pytest.raises(MinitrainError, match=r"a\.jsonl"):
        load_splits(tokenizer=tokenizer, train_file=path)


# --- Which rows ---


def test_eval_fraction_cuts_the_training_rows_in_two_by_the_seed(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path, every = reviews(tmp_path / "a.jsonl", 50), [f"number {i}" for i in range(50)]

    def cut(seed: int) -> tuple[list[str], list[str]]:
        splits = load_splits(tokenizer=tokenizer, train_file=path, eval_fraction=0.3, seed=seed)
        return texts_of(splits.train, tokenizer), texts_of(splits.evaluation["validation"], tokenizer)

    train, held = cut(1)
    assert (len(train), len(held)) == (35, 15)
    assert sorted(train + held) == sorted(every)  # complete, so disjoint too: every text is another
    assert cut(1) == (train, held) and cut(2) != (train, held)
    assert held != every[:15]


@pytest.mark.parametrize("fraction", [1.0, 0.99, 0.01])
def test_eval_fraction_must_leave_rows_on_both_sides(tmp_path: Path, tokenizer: Tokenizer, fraction: float) -> None:
    with pytest.raises(
        MinitrainError, match=rf"--eval_fraction {fraction} is [04] of 4 rows; expected some, not all"
    ):
        load_splits(tokenizer=tokenizer, train_file=reviews(tmp_path / "a.jsonl", 4), eval_fraction=fraction)


def test_eval_fraction_beside_evaluation_data_is_an_error(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = reviews(tmp_path / "a.jsonl", 4)
    with pytest.raises(MinitrainError, match="--eval_fraction: there is evaluation data already; leave one"):
        load_splits(tokenizer=tokenizer, train_file=path, eval_file=path, eval_fraction=0.5)


def test_a_bad_row_has_its_number_in_the_file_though_rows_are_drawn(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows: list[dict[str, Any]] = [{"text": f"t {i}", "label": i / 4} for i in range(20)]
    no_text = jsonl(tmp_path / "a.jsonl", rows[:17] + [{"text": None, "label": 0.5}] + rows[17:])
    no_score = jsonl(tmp_path / "b.jsonl", rows[:17] + [{"text": "x", "label": None}] + rows[17:])
    for seed in range(3):
        with pytest.raises(MinitrainError, match=r"a\.jsonl, row 18, column 'text'"):
            load_splits(
                tokenizer=tokenizer, train_file=no_text, eval_fraction=0.5, seed=seed, problem_type="regression"
            )
        with pytest.raises(MinitrainError, match=r"b\.jsonl, row 18, column 'label'"):
            load_splits(
                tokenizer=tokenizer, train_file=no_score, eval_fraction=0.5, seed=seed, problem_type="regression"
            )


def test_max_samples_of_the_first_rows(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = reviews(tmp_path / "a.jsonl", 9)
    splits = load_splits(
        tokenizer=tokenizer,
        train_file=path,
        eval_file=path,
        test_file=path,
        max_train_samples=4,
        max_eval_samples=2,
        sample="first",
    )
    assert texts_of(splits.train, tokenizer) == [f"number {i}" for i in range(4)]
    assert texts_of(splits.evaluation["validation"], tokenizer) == [f"number {i}" for i in range(2)]
    assert texts_of(splits.test["test"], tokenizer) == [f"number {i}" for i in range(2)]
    assert len(load_splits(tokenizer=tokenizer, train_file=path, max_train_samples=99).train) == 9


def test_what_is_no_choice_of_data_is_an_error(tmp_path: Path, tokenizer: Tokenizer, nine_tasks: Path) -> None:
    path = reviews(tmp_path / "a.jsonl", 4)
    with pytest.raises(MinitrainError, match="--eval_file and --test_file go with --train_file"):
        load_splits("demo", tokenizer=tokenizer, eval_file=path)
    with pytest.raises(MinitrainError, match="pass --dataset or --train_file"):
        load_splits(tokenizer=tokenizer)
    with pytest.raises(MinitrainError, match="'cola', 'sst2', 'mrpc'") as caught:
        load_splits(str(nine_tasks), "mprc", tokenizer=tokenizer)
    assert f"--dataset {nine_tasks} mprc" in str(caught.value)


def test_a_dataset_without_training_rows_lists_its_splits(tmp_path: Path, tokenizer: Tokenizer) -> None:
    reviews(tmp_path / "validation.jsonl", 4)
    with pytest.raises(MinitrainError, match=r"has no split 'train'; it has validation"):
        load_splits(str(tmp_path), tokenizer=tokenizer)


# --- Texts ---


def table(texts: list[Any], pairs: list[Any] | None = None) -> Table:
    columns = {"text": texts} if pairs is None else {"text": texts, "pair": pairs}
    return Table(source="own.jsonl", columns=columns, class_names={})


@pytest.mark.fault(48, 50)
def test_truncated_and_blank_rows_are_counted(tokenizer: Tokenizer) -> None:
    texts = ["short", "", " \n\t", "long " * 600, "long " * 511, "long " * 510]
    split = tokenize(table(texts), tokenizer, ("text",))
    assert (split.truncated, split.blank) == (2, 2)
    assert split.lengths == [3, 2, 2, 512, 512, 512]
    pairs = tokenize(table(["a", "", "a"], ["b", "b", " "]), tokenizer, ("text", "pair"), max_length=4)
    assert (pairs.truncated, pairs.blank) == (1, 2)


def test_rows_beyond_a_chunk_keep_order_counts_and_row_numbers(tokenizer: Tokenizer) -> None:
    texts: list[Any] = [f"number {i}" if i % 3 else "" for i in range(2500)]
    split = tokenize(table(texts), tokenizer, ("text",))
    assert split.blank == 834 and texts_of(split, tokenizer) == texts
    texts[2221] = None
    with pytest.raises(MinitrainError, match=r"own\.jsonl, row 2222, column 'text'"):
        tokenize(table(texts), tokenizer, ("text",))


@pytest.mark.fault(51)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "got NoneType"),
        (float("nan"), "got float (nan)"),
        (3, "got int (3)"),
        (b"bytes", "got bytes"),
        (["a"], "got list"),
        ("\ud800", "lone surrogate, '\\ud800' at character 1"),
    ],
)
@pytest.mark.parametrize("column", ["text", "pair"])
def test_what_is_not_text_is_an_error_with_its_row_and_column(
    tokenizer: Tokenizer, value: Any, said: str, column: str
) -> None:
    values = {"text": ["a", "b", "c"], "pair": ["a", "b", "c"]}
    values[column][2] = value
    with pytest.raises(MinitrainError) as caught:
        tokenize(table(values["text"], values["pair"]), tokenizer, ("text", "pair"))
    assert f"own.jsonl, row 3, column '{column}': " in str(caught.value) and said in str(caught.value)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_of_numbers_is_no_text_whatever_the_format(
    tmp_path: Path, tokenizer: Tokenizer, kind: str
) -> None:
    import datasets

    path = tmp_path / f"a.{kind}"
    rows = datasets.Dataset.from_dict({"text": [1984, 2001], "label": [0, 1]})
    rows.to_parquet(str(path)) if kind == "parquet" else rows.to_json(str(path))
    with pytest.raises(MinitrainError, match=rf"a\.{kind}, row 1, column 'text': expected text, got int \(1984\)"):
        load_splits(tokenizer=tokenizer, train_file=str(path), text_columns=("text",))


@pytest.mark.fault(54)
def test_an_empty_split_is_an_error_that_lists_its_columns(tokenizer: Tokenizer) -> None:
    with pytest.raises(MinitrainError, match=r"own\.jsonl: is empty; its columns are text, pair"):
        tokenize(table([], []), tokenizer, ("text",))


def test_a_length_without_room_for_a_token_is_an_error(tokenizer: Tokenizer) -> None:
    for max_length in (3, 0, -1):
        with pytest.raises(
            MinitrainError, match=f"--max_length is {max_length}, but a pair of texts needs 3 special"
        ):
            tokenize(table(["a"], ["b"]), tokenizer, ("text", "pair"), max_length=max_length)


def test_a_slice_of_a_split_is_a_batch_and_a_word_is_no_row(tokenizer: Tokenizer) -> None:
    split = tokenize(
        Table(source="rows", columns={"text": ["one", "two", "three"]}, class_names={}), tokenizer, ("text",)
    )
    assert split[1:] == [split[1], split[2]] and split[::-2] == [split[2], split[0]] and split[5:] == []
    assert split[torch.tensor(1)] == split[1]  # type: ignore[call-overload]
    wrong: Any = "text"
    with pytest.raises(MinitrainError, match="row 'text' .str.; give a number"):
        split[wrong]


def test_a_split_is_a_sequence_of_examples(tokenizer: Tokenizer) -> None:
    data = Table(source="s", columns={"text": ["one", "two two"], "label": [1, 0]}, class_names={})
    split = tokenize(data, tokenizer, ("text",), "label", Labels(names=("a", "b")))
    assert [example.label for example in split] == [1, 0]  # type: ignore[attr-defined]
    assert split[-1] == split[1] and split[1].input_ids == tokenizer("two two")[0].input_ids
    assert split.lengths == [3, 4]
    with pytest.raises(IndexError, match="row 2 of a split of 2 rows"):
        split[2]
    assert tokenize(data, tokenizer, ("text",)).labels is None
