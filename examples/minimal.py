"""The whole fine-tuning loop in plain PyTorch: `python examples/minimal.py`, on the embedded model and data.

It computes what `minitrain.train` computes with `kernels="reference"`, bit for bit. A few minutes on a CPU.
"""

import torch

from minitrain import (
    AdamW,
    BucketBatchSampler,
    SequenceClassifier,
    clip_grad_norm,
    collate,
    cross_entropy,
    decay_groups,
    evaluate,
    linear_schedule,
    load_classifier,
    load_splits,
    load_tokenizer,
    metric_for,
)

EPOCHS, BATCH_SIZE, LEARNING_RATE, SEED = 3, 8, 5e-5, 42


def train(name: str, dataset: str, max_steps: int | None = None) -> tuple[SequenceClassifier, list[float], float]:
    """Fine-tune a model; returns it with the loss of each step and its accuracy on the validation split."""
    # ---- text -> token ids -> batches ---------------------------------------------------------------------------
    tokenizer = load_tokenizer(name)
    splits = load_splits(dataset, tokenizer=tokenizer)
    sampler = BucketBatchSampler(splits.train.lengths, BATCH_SIZE, SEED)
    steps = [rows for epoch in range(EPOCHS) for rows in sampler.batches(epoch)][:max_steps]

    # ---- weights -> model -> optimizer --------------------------------------------------------------------------
    torch.manual_seed(SEED)  # the weights of the new head
    model = load_classifier(name, label_names=splits.labels.names, kernels="reference").train()
    optimizer = AdamW(decay_groups(model, weight_decay=0.0), lr=LEARNING_RATE)

    # ---- forward, loss, backward, clip, update ------------------------------------------------------------------
    torch.manual_seed(SEED)  # dropout, whatever the head drew
    losses = []
    for step, rows in enumerate(steps):
        examples = [splits.train[row] for row in rows]
        batch = collate(examples, tokenizer.pad_token_id, padding_side=tokenizer.padding_side)
        assert batch.labels is not None  # every example of the split has one
        loss_sum, count = cross_entropy(model(**batch.inputs), batch.labels)
        loss = loss_sum / count
        loss.backward()
        clip_grad_norm(model.parameters(), 1.0)
        optimizer.step(LEARNING_RATE * linear_schedule(step, len(steps)))
        optimizer.zero_grad()
        losses.append(loss.item())

    metric = metric_for(None, splits.labels.num_classes)
    return model, losses, evaluate(model, splits.evaluation["validation"], metric).metrics["accuracy"]


if __name__ == "__main__":
    print(f"accuracy {train('demo', 'demo')[2]:.4f}")
