"""What a run made of the rows that it was scored on: `predictions.jsonl`, an object a row, in the data's order."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from minitrain.data.dataset import Splits
from minitrain.data.labels.ids import Labels, display_names, label_numbers
from minitrain.data.tables.table import Table
from minitrain.run.run_folder import PREDICTIONS
from minitrain.storage.files import whole_text_file
from minitrain.training.evaluation import Evaluation, predictions_of

OWN = (
    "split",
    "file",
    "row",
    "label",
    "prediction",
    "probability",
    "probabilities",
)  # what stands beside the texts


def write_predictions(directory: Path, splits: Splits, final: Mapping[str, Evaluation]) -> None:
    """Write the file of a run, or remove an earlier run's where nothing was scored.

    A row has its number in its source, from 1 (and the source, where a split has several; and the split, where
    several were scored), its texts, its label, the prediction, and of classes the probabilities. A text column with
    one of these names is called input_row, and so on.
    """
    path = directory / PREDICTIONS
    if not final:
        path.unlink(missing_ok=True)
        return
    with whole_text_file(path) as file:
        for name, result in final.items():
            where = {"split": name} if len(final) > 1 else {}
            for record in _records(splits, splits.texts[name], result.logits):
                file.write(json.dumps(where | record, ensure_ascii=False) + "\n")


def _records(splits: Splits, table: Table, logits: Tensor) -> Iterator[dict[str, Any]]:
    labels, columns = splits.labels, splits.text_columns
    texts = [table.column(name) for name in columns]
    keys = [f"input_{name}" if name in OWN else name for name in columns]
    true = label_numbers(table, splits.label_column, labels)
    places = [table.place(row) for row in range(len(table))]
    several = len({source for source, _ in places}) > 1
    for row, ((source, number), label) in enumerate(zip(places, true, strict=True)):
        yield {
            **({"file": source} if several else {}),
            "row": number,
            **{key: values[row] for key, values in zip(keys, texts, strict=True)},
            "label": label if labels.names is None else display_names(labels.names)[int(label)],
            **_answer(logits[row], labels),
        }


def _answer(logits: Tensor, labels: Labels) -> dict[str, Any]:
    """(C,) logits as a prediction."""
    found = predictions_of(logits[None])[0].item()
    if labels.names is None:
        return {"prediction": found}
    chances, names = logits.double().softmax(-1).tolist(), display_names(labels.names)
    return {
        "prediction": names[int(found)],
        "probability": chances[int(found)],
        "probabilities": dict(zip(names, chances, strict=True)),
    }
