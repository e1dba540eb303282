"""AdamW and clipping with sparse gradients against torch's with dense ones: the function of the whole matrix."""

from pathlib import Path

import pytest
import torch
from parity.reference import save_checkpoint
from torch import Tensor, nn

from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import collate
from minitrain.data.tokenizer.tokenizer import Example
from minitrain.errors import MinitrainError
from minitrain.kernels.sparse_moments import SparseMoments
from minitrain.model.weights import load_classifier
from minitrain.training.clipping import clip_grad_norm
from minitrain.training.optim import AdamW
from minitrain.training.schedules import linear_schedule
from minitrain.training.setup import make_state

ROWS, WIDTH, STEPS = 50, 8, 40


def used_rows(step: int) -> Tensor:
    """Six rows a step, with repetitions, out of the first 40; every fifth step uses the same as the first."""
    generator = torch.Generator().manual_seed(0 if step % 5 == 0 else step)
    return torch.randint(40, (6,), generator=generator)


def table(sparse: bool) -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(ROWS, WIDTH, padding_idx=0, sparse=sparse)


def backward(embedding: nn.Embedding, other: nn.Linear, step: int) -> None:
    out = other(embedding(used_rows(step)))
    (out * (step + 1.0)).sin().sum().backward()


def trained(
    sparse: bool, optimizer: type, weight_decay: float, fused: bool, clip: float
) -> tuple[nn.Embedding, nn.Linear, list[float]]:
    """A table and a layer after STEPS steps, with the gradient norms on the way."""
    embedding = table(sparse)
    other = nn.Linear(WIDTH, 3)
    parameters = [*embedding.parameters(), *other.parameters()]
    ours = optimizer is AdamW
    opt = optimizer(parameters, lr=1e-2, weight_decay=weight_decay, fused=fused)
    norms = []
    for step in range(STEPS):
        backward(embedding, other, step)
        rate = 1e-2 * linear_schedule(step, STEPS, 5)
        if ours:
            norms.append(clip_grad_norm(parameters, clip).item())
            opt.step(rate)
        else:
            norms.append(nn.utils.clip_grad_norm_(parameters, clip if clip else float("inf")).item())
            opt.param_groups[0]["lr"] = rate
            opt.step()
        opt.zero_grad()
    return embedding, other, norms


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_sparse_gradients_train_as_dense_ones_do_in_torch(fused: bool, weight_decay: float, clip: float) -> None:
    ours, other, norms = trained(True, AdamW, weight_decay, fused, clip)
    theirs, expected, their_norms = trained(False, torch.optim.AdamW, weight_decay, fused, clip)
    # Rounding alone: the rows lie in another order, and norms are sums in another order.
    torch.testing.assert_close(norms, their_norms, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other.weight, expected.weight, rtol=1e-5, atol=1e-6)
    # The comparison means something: rows moved, some long after their last gradient, and rows 40 to 49 never.
    start = table(False).weight
    assert (ours.weight[:40] != start[:40]).any()
    assert torch.equal(ours.weight[40:], theirs.weight[40:])
    assert torch.equal(ours.weight[40:], start[40:]) == (weight_decay == 0.0)


def test_only_touched_rows_have_moments_and_they_go_on_moving_without_a_gradient() -> None:
    embedding = table(True)
    optimizer = AdamW(embedding.parameters(), lr=1e-2)
    backward(embedding, nn.Linear(WIDTH, 3), 1)
    assert embedding.weight.grad is not None and embedding.weight.grad.is_sparse
    optimizer.step()
    touched = optimizer.state[embedding.weight]["sparse"]
    assert sorted(touched.rows.tolist()) == sorted(set(used_rows(1).tolist()))
    assert touched.exp_avg.shape == touched.exp_avg_sq.shape == (len(touched.rows), WIDTH)
    before = embedding.weight.detach().clone()
    optimizer.zero_grad()
    embedding(torch.tensor([45])).sum().backward()
    optimizer.step()
    moved = (embedding.weight != before).any(1).nonzero()[:, 0].tolist()
    assert moved == sorted({*used_rows(1).tolist(), 45})


def test_a_padding_row_is_never_touched() -> None:
    embedding = table(True)
    optimizer = AdamW(embedding.parameters())
    embedding(torch.tensor([0, 3, 0])).sum().backward()
    optimizer.step()
    assert optimizer.state[embedding.weight]["sparse"].rows.tolist() == [3]


def test_gradients_of_several_passes_add_up() -> None:
    weights = []
    for sparse in (True, False):
        embedding, other = table(sparse), nn.Linear(WIDTH, 3)
        torch.manual_seed(1)
        nn.init.normal_(other.weight)
        optimizer = AdamW(embedding.parameters(), lr=1e-2)
        for step in range(4):
            backward(embedding, other, step)
        clip_grad_norm(embedding.parameters(), 0.1)
        optimizer.step()
        weights.append(embedding.weight)
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("first", [True, False])
def test_sparse_and_dense_gradients_may_change_places(first: bool) -> None:
    ours, theirs = table(first), table(False)
    our, their = AdamW(ours.parameters(), lr=1e-2), AdamW(theirs.parameters(), lr=1e-2)
    torch.manual_seed(2)
    other = nn.Linear(WIDTH, 3)
    for step in range(6):
        ours.sparse = first == (step < 3)
        for embedding, optimizer in ((ours, our), (theirs, their)):
            backward(embedding, other, step)
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)


def test_a_saved_state_goes_on_where_it_stopped() -> None:
    torch.manual_seed(3)
    other, ours, theirs = nn.Linear(WIDTH, 3), table(True), table(True)
    our = AdamW(ours.parameters(), lr=1e-2)
    for step in range(6):
        backward(ours, other, step)
        our.step()
        our.zero_grad()
    their = AdamW(theirs.parameters(), lr=1e-2)
    theirs.load_state_dict(ours.state_dict())
    their.load_state_dict({name: tensor.clone() for name, tensor in our.state_dict().items()})
    for step in range(6, 9):
        for embedding, optimizer in ((ours, our), (theirs, their)):
            backward(embedding, other, step)
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(ours.weight, theirs.weight)
    for name, tensor in our.state_dict().items():
        assert torch.equal(tensor, their.state_dict()[name]), name


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("0.rows", torch.tensor([3, 3]), "each row once"),
        ("0.rows", torch.tensor([3, ROWS]), "from 0 to 49"),
        ("0.rows", torch.tensor([-1, 3]), "from 0 to 49"),
        ("0.rows", torch.tensor([3.0, 4.0]), "int64"),
        ("0.exp_avg", torch.zeros(2, WIDTH + 1), "(2, 9)"),
        ("0.exp_avg_sq", torch.zeros(3, WIDTH), "(3, 8)"),
    ],
)
def test_a_damaged_state_is_refused_whole(name: str, value: Tensor, said: str) -> None:
    embedding = table(True)
    optimizer = AdamW(embedding.parameters())
    embedding(torch.tensor([3, 4])).sum().backward()
    optimizer.step()
    before = {key: tensor.clone() for key, tensor in optimizer.state_dict().items()}
    with pytest.raises(MinitrainError) as caught:
        optimizer.load_state_dict(before | {name: value})
    assert name in str(caught.value) and said in str(caught.value)
    for key, tensor in optimizer.state_dict().items():
        assert torch.equal(tensor, before[key])


def test_a_state_with_rows_but_no_moments_is_refused() -> None:
    embedding = table(True)
    optimizer = AdamW(embedding.parameters())
    with pytest.raises(MinitrainError, match=r"'0\.exp_avg'"):
        optimizer.load_state_dict({"0.step": torch.tensor(1.0), "0.rows": torch.tensor([1])})


def test_gather_and_scatter_give_back_what_lay_there() -> None:
    weight = torch.randn(ROWS, WIDTH)
    before = weight.clone()
    touched = SparseMoments(weight, torch.empty(0, dtype=torch.int64))
    values = torch.randn(3, WIDTH)
    gradient = torch.sparse_coo_tensor(torch.tensor([[7, 2, 7]]), values, (ROWS, WIDTH), check_invariants=True)
    rows, dense = touched.gather(weight, gradient)
    assert touched.rows.tolist() == [2, 7]
    assert torch.equal(rows, before[[2, 7]])
    assert torch.equal(dense, torch.stack([values[1], values[0] + values[2]]))
    rows += 1.0
    touched.scatter(weight)
    before[[2, 7]] += 1.0
    assert torch.equal(weight, before)


@pytest.mark.parametrize(("kernels", "sparse"), [("fast", True), ("reference", False)])
def test_training_asks_for_sparse_gradients_where_kernels_are_fast(
    kernels: str, sparse: bool, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path)
    config = TrainConfig(model=str(tmp_path), dataset="demo", kernels=kernels, device="cpu")
    state = make_state(load_classifier(tmp_path, kernels=kernels).train(), config)
    batch = collate([Example(input_ids=[5, 7, 5], token_type_ids=[0, 0, 0], label=1)])
    state.model(**batch.inputs).sum().backward()
    gradient = state.model.encoder.word_embeddings.weight.grad
    assert gradient is not None and gradient.is_sparse is sparse
    state.optimizer.step()
    assert ("0.rows" in state.optimizer.state_dict()) is sparse
