"""The model card as the Hub's own library reads it back."""

import math
from typing import Any

import pytest
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from minitrain.config.train_config import TrainConfig
from minitrain.data.labels.ids import Labels
from minitrain.run.save import model_card
from minitrain.training.evaluation import Evaluation


def evaluation(**metrics: float) -> Evaluation:
    return Evaluation(loss=0.5, metrics=metrics, confusion=None, examples=10, seconds=0.0)


def card_of(
    results: dict[str, Evaluation],
    names: tuple[str, ...] | None = ("no", "yes"),
    positive: int = 1,
    **flags: Any,
) -> ModelCard:
    labels = Labels(names=names, positive=positive)
    return ModelCard(model_card(TrainConfig(**flags), labels, 12, results, "a-run"))


def eval_results(card: ModelCard) -> list[EvalResult]:
    assert isinstance(card.data, ModelCardData)
    return list(card.data.eval_results or [])


def test_card_holds_every_metric_of_every_split() -> None:
    results = {
        "validation_matched": evaluation(accuracy=0.75, f1=0.5),
        "validation_mismatched": evaluation(accuracy=0.7, f1=0.4),
    }
    found = eval_results(card_of(results, dataset="nyu-mll/glue", subset="mnli"))
    assert {(r.dataset_split, r.metric_type, r.metric_value) for r in found} == {
        ("validation_matched", "accuracy", 0.75),
        ("validation_matched", "f1", 0.5),
        ("validation_mismatched", "accuracy", 0.7),
        ("validation_mismatched", "f1", 0.4),
    }
    assert {(r.task_type, r.dataset_type, r.dataset_config) for r in found} == {
        ("text-classification", "nyu-mll/glue", "mnli")
    }


def test_card_names_model_library_and_task() -> None:
    card = card_of({"validation": evaluation(accuracy=0.5)}, model="google-bert/bert-base-uncased")
    data = card.data.to_dict()
    assert data["base_model"] == "google-bert/bert-base-uncased"
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "text-classification")
    assert [entry["name"] for entry in data["model-index"]] == ["a-run"]


def test_nan_is_no_result() -> None:
    found = eval_results(card_of({"validation": evaluation(pearson=math.nan, mse=0.5)}, names=None))
    assert [(r.metric_type, r.metric_value) for r in found] == [("mse", 0.5)]


def test_run_without_evaluation_has_a_card_too() -> None:
    card = card_of({})
    assert eval_results(card) == []
    assert "12 steps" in card.text


def test_text_says_how_it_was_trained() -> None:
    flags: dict[str, Any] = {"learning_rate": 3e-5, "gradient_accumulation_steps": 4, "seed": 7}
    text = " ".join(card_of({"validation": evaluation(f1=0.5)}, **flags).text.split())
    assert "12 steps, learning rate 3e-05, batch size 32, seed 7" in text
    assert "Labels: no, yes; F1 is of yes." in text
    assert "Labels: no, yes." in card_of({"validation": evaluation(accuracy=0.5)}).text  # without F1, not whose
    assert "Labels: a score." in card_of({"validation": evaluation(mse=0.5)}, names=None).text


@pytest.mark.parametrize("name", ["my: data #1.csv", "'quoted' \"twice\".csv", "größe – данные.jsonl", "---.csv"])
def test_awkward_file_names_survive_the_front_matter(name: str) -> None:
    card = card_of({"validation": evaluation(accuracy=0.5)}, train_file=name)
    assert [r.dataset_type for r in eval_results(card)] == [name]
    assert card.text.strip().startswith("# a-run")


@pytest.mark.parametrize(("positive", "name"), [(0, "no"), (1, "yes")])
def test_card_says_which_class_f1_is_of(positive: int, name: str) -> None:
    card = card_of({"validation": evaluation(accuracy=0.75, f1=0.5)}, positive=positive)
    assert f"F1 is of {name}." in card.text
    assert {(r.metric_type, r.metric_name) for r in eval_results(card)} == {
        ("accuracy", None),
        ("f1", f"F1 of {name}"),
    }


def test_names_of_classes_cannot_break_the_card() -> None:
    names = ("a\n---\nb: *x", "\x1b[31mred\u202e")
    card = card_of({"validation": evaluation(f1=0.5)}, names=names)
    assert "Labels: a\\n---\\nb: *x, \\x1b[31mred\\u202e; F1 is of \\x1b[31mred\\u202e." in card.text
    assert [r.metric_name for r in eval_results(card)] == ["F1 of \\x1b[31mred\\u202e"]
    many = card_of({"validation": evaluation(macro_f1=0.5)}, names=tuple(f"c{i}" for i in range(500)))
    assert "c99 and 400 more." in many.text
