"""The texts on which two runs differ: one is right and the other wrong, or nearer to the score."""

from typing import Any

from torch import Tensor

from minitrain.run.compare.pairs import Pairs
from minitrain.run.compare.rows import SCORES, Key


def texts_won(pairs: Pairs, winner: int, show: int) -> dict[str, Any]:
    """The rows that one run gets right and the other wrong, those first where the other was most certain.

    For scores: the rows whose score one run predicts more closely, those first where the other is further off.

    Args:
        winner: 0 or 1, the run that is right.
        show: Rows to describe, texts included.

    Returns:
        `count` of such rows, and `rows`: a description of each of the first.
    """
    loser = 1 - winner
    if pairs.runs[0].kind == SCORES:
        worth = pairs.confidences(loser) - pairs.confidences(winner)
        won = worth > 0
    else:
        worth, won = pairs.confidences(loser), pairs.right(winner) & ~pairs.right(loser)
    rows = won.nonzero()[:, 0]
    ordered = rows[worth[rows].nan_to_num(-1.0).argsort(descending=True, stable=True)][:show].tolist()
    keys = list(pairs.rows[0].places)
    return {"count": len(rows), "rows": [_row(pairs, keys, row, worth) for row in ordered]}


def _row(pairs: Pairs, keys: list[Key], row: int, worth: Tensor) -> dict[str, Any]:
    ours, theirs = pairs.rows
    first, second = pairs.places[0][row], pairs.places[1][row]
    file, number = keys[first]
    return {
        **({} if file is None else {"file": file}),
        "row": number,
        "label": ours.labels[first],
        "predictions": [ours.predictions[first], theirs.predictions[second]],
        "certainty": worth[row].item(),  # of the wrong run; for scores, by how much it is further off
        "texts": pairs.runs[0].texts_of(pairs.splits[0], first),
    }
