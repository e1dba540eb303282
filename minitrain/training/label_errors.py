"""Labels that are probably wrong, by confident learning: from labels and predictions alone, without training again.

1. `class_thresholds`: for each class, the mean probability that the rows labelled so get for it. It is high for a
   class that the model is sure of, and low for one that it is never sure of, such as a rare one.
2. `confident_joint`: a row that reaches the threshold of a class is counted for it: label i, counted for class j.
3. `calibrated_joint` scales the counts of each label to its rows: so many rows with label i are truly of class j.
4. `find_label_errors` lists that many rows of i, those with the largest p(j) - p(i), unless the model agrees with
   the label. `label_quality` ranks them.

The probabilities must come from a model that did not train on the row, such as those of folds: on its own training
rows a model has learned the wrong labels too.

Source: Northcutt, Jiang, Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, as
cleanlab 2.9 computes it (`count.py`, `filter.py` with prune_by_noise_rate, `rank.py`): equal to the last digit, but
that rows and counts that tie are taken in the order of rows and classes, which cleanlab leaves to numpy's sort.
"""

import torch
from torch import Tensor

NEVER = 2.0  # the threshold of a class without rows
SLACK = 1e-6  # a probability this close to a threshold, or to the highest, counts as equal
FORGETTING = 0.8  # weight of a row's next worse label in the quality of several


def class_thresholds(labels: Tensor, probabilities: Tensor) -> Tensor:
    """(C,) float64: the mean probability of each class over the rows labelled so; `NEVER` without such rows.

    Args:
        labels: (N,) int64 class ids.
        probabilities: (N, C) float64.

    >>> class_thresholds(torch.tensor([0, 0, 1]), torch.tensor([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]]).double())
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    import numpy  # its sums have the bits of the source

    own = [probabilities[labels == k, k].numpy() for k in range(probabilities.size(1))]
    means = [max(float(numpy.mean(values)), 2 * SLACK) if len(values) else NEVER for values in own]
    return torch.tensor(means, dtype=torch.float64)


def confident_joint(labels: Tensor, probabilities: Tensor) -> Tensor:
    """(C, C) int64: rows by their label and the class that they are confidently counted for.

    A row that reaches no threshold is not counted. One that reaches several counts for its most probable class, as
    in cleanlab (in the paper: for the most probable of those that it reaches). The diagonal is at least 1.
    """
    classes = probabilities.size(1)
    reached = probabilities >= class_thresholds(labels, probabilities) - SLACK
    counted = torch.where(reached.sum(1) > 1, probabilities.argmax(1), reached.int().argmax(1))
    cells = (labels * classes + counted)[reached.any(1)]
    joint = cells.bincount(minlength=classes * classes).view(classes, classes)
    joint.diagonal().clamp_(min=1)
    return joint


def calibrated_joint(joint: Tensor, labels: Tensor) -> Tensor:
    """(C, C) int64: how many rows with a label (line) are estimated to be truly of a class (column).

    A line sums to the rows with its label.

    Args:
        joint: (C, C) int64 of `confident_joint`.
        labels: (N,) int64.
    """
    import numpy

    rows = labels.bincount(minlength=len(joint))
    scaled = (joint.double().T / joint.sum(1) * rows).contiguous()
    # No change but in last bits, which decide how halves are rounded.
    scaled = scaled / float(numpy.sum(scaled.numpy())) * len(labels)
    return torch.stack([_rounded(line, int(total)) for line, total in zip(scaled.T, rows, strict=True)])


def _rounded(line: Tensor, total: int) -> Tensor:
    """Round numbers to integers with this sum, moving those that are rounded most to the other side."""
    whole = line.round()
    missing = total - int(whole.sum())
    order = (line - whole).argsort(stable=True)  # rounded up the most first
    if missing > 0:
        whole[order.flip(0)[:missing]] += 1
    else:
        whole[order[:-missing]] -= 1
    return whole.long()


def _rows_to_list(joint: Tensor) -> Tensor:
    """Off the diagonal of (C, C): how many rows of a label to list for another class; one row of a label stays."""
    lacking = (1 - joint.diagonal()).clamp(min=0)
    others = ((joint > 0).sum(1) - 1).clamp(min=1)
    return (joint - (lacking / others)[:, None]).clamp(min=0).long()


def find_label_errors(labels: Tensor, probabilities: Tensor) -> Tensor:
    """(N,) bool: whether a row's label is probably wrong; (N, C) for several labels a row, each a yes or a no.

    Args:
        labels: (N,) int64 class ids, or (N, C) with 1 for each label of a row.
        probabilities: (N, C) float64, by a model that did not train on the row.

    >>> sure = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]).double()
    >>> find_label_errors(torch.tensor([0, 0, 0, 1, 1]), sure)
    tensor([False, False,  True, False, False])
    """
    if labels.ndim == 2:
        found = [find_label_errors(*_one_label(labels, probabilities, c)) for c in range(labels.size(1))]
        return torch.stack(found, dim=1)
    classes = probabilities.size(1)
    to_list = _rows_to_list(calibrated_joint(confident_joint(labels, probabilities), labels))
    wrong = torch.zeros(len(labels), dtype=torch.bool)
    for given in range(classes):
        rows = (labels == given).nonzero()[:, 0]
        for other in to_list[given].nonzero()[:, 0].tolist():
            if other != given:
                margin = probabilities[rows, other] - probabilities[rows, given]
                worst = margin.argsort(descending=True, stable=True)[: int(to_list[given, other])]
                wrong[rows[worst]] = True
    favoured = probabilities.clone()
    favoured[torch.arange(len(labels)), labels] += SLACK
    return wrong & (favoured.argmax(1) != labels)


def _one_label(labels: Tensor, probabilities: Tensor, c: int) -> tuple[Tensor, Tensor]:
    """One of several labels as two classes, no and yes: (N,) int64 and (N, 2) float64."""
    yes = probabilities[:, c]
    return labels[:, c].long(), torch.stack([1 - yes, yes], dim=1)


def label_quality(labels: Tensor, probabilities: Tensor) -> Tensor:
    """(N,) float64 from 0 (surely wrong) to 1: (p(label) - p(most probable other class) + 1) / 2.

    With several labels a row, the probabilities of each yes or no, averaged with most weight on the lowest.
    Arguments as of `find_label_errors`.

    >>> label_quality(torch.tensor([0, 1]), torch.tensor([[0.25, 0.5, 0.25], [0.25, 0.75, 0.0]]).double())
    tensor([0.3750, 0.7500], dtype=torch.float64)
    """
    if labels.ndim == 2:
        given = torch.where(labels == 1, probabilities, 1 - probabilities)
        first, *rest = given.sort(dim=1, descending=True).values.unbind(1)
        for values in rest:
            first = FORGETTING * values + (1 - FORGETTING) * first
        return first
    own = labels[:, None]
    highest = probabilities.scatter(1, own, -torch.inf).max(1).values
    return (probabilities.gather(1, own)[:, 0] - highest + 1) / 2


def estimated_noise(labels: Tensor, probabilities: Tensor) -> Tensor:
    """The estimated joint distribution of given and true labels, which sums to 1: (C, C) float64.

    With several labels a row, (C, 2, 2): of each label's no (0) and yes (1).
    """
    if labels.ndim == 2:
        each = [estimated_noise(*_one_label(labels, probabilities, c)) for c in range(labels.size(1))]
        return torch.stack(each)
    return calibrated_joint(confident_joint(labels, probabilities), labels).double() / len(labels)
