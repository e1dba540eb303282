"""Chapter 3 of the Hugging Face course, "Fine-tuning a pretrained model", without the libraries it teaches.

Each function is one of its snippets, with the course's settings. On the Hub's MRPC it is
`python examples/course_loop.py`; without a network, `python examples/course_loop.py --model demo --dataset demo`.
The loop in `train` is the whole training.
"""

import argparse

import torch
from tqdm import tqdm

from minitrain import (
    AdamW,
    GlueMetric,
    RandomBatchSampler,
    collate,
    cross_entropy,
    linear_schedule,
    load_classifier,
    load_splits,
    load_tables,
    load_tokenizer,
    predict,
)
from minitrain.data.dataset import Split
from minitrain.model.classifier import SequenceClassifier


def one_step(model_name: str) -> float:
    """Two sentences, one batch, one optimizer step; returns the loss before it."""
    tokenizer, model = load_tokenizer(model_name), load_classifier(model_name, num_labels=2)
    batch = collate(
        tokenizer(["I've been waiting for a HuggingFace course my whole life.", "This course is amazing!"]),
        tokenizer.pad_token_id,
    )
    optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)  # the defaults of torch.optim.AdamW
    loss_sum, count = cross_entropy(model(**batch.inputs), torch.tensor([1, 1]))
    (loss_sum / count).backward()
    optimizer.step()
    return loss_sum.item() / count


def show(dataset: str, subset: str | None) -> None:
    """Print the dataset's splits, their sizes and columns, and the first row."""
    tables = load_tables(dataset, subset)
    for split, table in tables.items():
        print(f"{split:<12}{len(table):>6} rows, columns {', '.join(table.columns)}")
    print({name: values[0] for name, values in tables["train"].columns.items()})


def train(model: SequenceClassifier, data: Split, pad_token_id: int, epochs: int, max_steps: int | None) -> None:
    """The whole training loop."""
    sampler = RandomBatchSampler(len(data), batch_size=8, seed=42)
    optimizer = AdamW(model.parameters(), lr=3e-5, weight_decay=0.01)
    total = min(epochs * len(sampler), max_steps or epochs * len(sampler))
    order = [rows for epoch in range(epochs) for rows in sampler.batches(epoch)][:total]

    model.train()
    for step, rows in enumerate(tqdm(order)):
        batch = collate([data[row] for row in rows], pad_token_id, padding_side=data.padding_side)
        assert batch.labels is not None
        loss_sum, count = cross_entropy(model(**batch.inputs), batch.labels)
        (loss_sum / count).backward()
        optimizer.step(lr=3e-5 * linear_schedule(step, total))
        optimizer.zero_grad()
    model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="google-bert/bert-base-uncased")
    parser.add_argument("--dataset", default="nyu-mll/glue")
    parser.add_argument("--subset", default=None, help="mrpc for the default dataset")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--max_steps", type=int, default=None)
    arguments = parser.parse_args()
    subset = arguments.subset or ("mrpc" if arguments.dataset == "nyu-mll/glue" else None)

    print(f"loss of one batch of two sentences: {one_step(arguments.model):.4f}")
    show(arguments.dataset, subset)

    tokenizer = load_tokenizer(arguments.model)
    splits = load_splits(arguments.dataset, subset, tokenizer=tokenizer)  # tokenized in batches, truncated
    first = [splits.train[row] for row in range(8)]
    print("lengths of the first eight:", [len(example.input_ids) for example in first])
    print("collated:", tuple(collate(first, tokenizer.pad_token_id).input_ids.shape))

    torch.manual_seed(42)
    model = load_classifier(arguments.model, label_names=splits.labels.names)
    train(model, splits.train, tokenizer.pad_token_id, arguments.epochs, arguments.max_steps)

    validation = splits.evaluation["validation"]
    logits = predict(model, validation, pad_token_id=tokenizer.pad_token_id)
    print("predictions:", tuple(logits.shape))
    metric = GlueMetric("mrpc")  # accuracy and F1, for any two classes
    assert validation.labels is not None
    metric.update(logits.argmax(-1), validation.labels)
    print(metric.compute())


if __name__ == "__main__":
    main()
