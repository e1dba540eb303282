"""Dropout from streams of the examples' own: a function of (seed, step, row, layer), and still dropout."""

import random
from pathlib import Path

import pytest
import torch
from parity.reference import REFERENCES, save_checkpoint
from test_loop import Recorder, write_tiny_model

from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import collate
from minitrain.data.tokenizer.tokenizer import Example
from minitrain.errors import MinitrainError
from minitrain.kernels.attention import fast_attention
from minitrain.kernels.dropout import ExampleStreams, drawing_from, dropout_from_bits, keep_mask
from minitrain.kernels.fast import FAST
from minitrain.model.weights import load_classifier
from minitrain.training.loop import fit
from minitrain.training.setup import make_state

LENGTHS = [5, 3, 7]


def masks(rows: list[int], lengths: list[int], longest: int, seed: int = 1, step: int = 0) -> list[torch.Tensor]:
    """Of three layers: embeddings (B, L, H), attention (B, N, L, L), head (B, H)."""
    count = len(rows)
    with drawing_from(ExampleStreams(seed, step, rows, lengths)):
        shapes = ((count, longest, 8), (count, 2, longest, longest), (count, 8))
        return [keep_mask(shape, 0.3, torch.float32)[0] for shape in shapes]


def test_mask_of_an_example_does_not_depend_on_its_company_or_padding() -> None:
    together = masks([10, 20, 30], LENGTHS, 7)
    for place, (row, length) in enumerate(zip([10, 20, 30], LENGTHS, strict=True)):
        alone = masks([row], [length], length)
        assert torch.equal(together[0][place, :length], alone[0][0])
        assert torch.equal(together[1][place, :, :length, :length], alone[1][0])
        assert torch.equal(together[2][place], alone[2][0])


def test_padding_on_the_left_takes_nothing_from_the_stream_either() -> None:
    """A short example among long ones, padded before its tokens, meets the dropout that it meets alone."""
    shapes = [(2, 9, 4), (2, 3, 9, 9)]
    with drawing_from(ExampleStreams(1, 0, [7, 8], [5, 9], "left")):
        padded = [keep_mask(shape, 0.5, torch.float32)[0][0] for shape in shapes]
    with drawing_from(ExampleStreams(1, 0, [7], [5])):
        alone = [keep_mask(shape, 0.5, torch.float32)[0][0] for shape in [(1, 5, 4), (1, 3, 5, 5)]]
    assert torch.equal(padded[0][4:], alone[0]) and torch.equal(padded[1][:, 4:, 4:], alone[1])
    assert len(alone[0].unique()) == 2


def test_mask_differs_with_row_step_seed_and_layer() -> None:
    whole = [
        masks([row], [64], 64, seed, step)[0] for row, seed, step in ((0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1))
    ]
    with drawing_from(ExampleStreams(1, 0, [0], [64])):
        keep_mask((1, 64, 8), 0.3, torch.float32)[0]
        whole.append(keep_mask((1, 64, 8), 0.3, torch.float32)[0])
    for i, first in enumerate(whole):
        for second in whole[i + 1 :]:
            agree = (first == second).double().mean().item()
            assert agree == pytest.approx(0.3**2 + 0.7**2, abs=0.12)  # as two independent masks: sd 0.02


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_right_share_is_dropped_and_the_mean_is_kept(p: float) -> None:
    with drawing_from(ExampleStreams(3, 0, list(range(50)), [40] * 50)):
        dropped = dropout_from_bits(torch.ones(50, 40, 64), p, True)
    count = dropped.numel()
    share = (dropped == 0).double().mean().item()
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / count) ** 0.5)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=1e-4)
    # Of neighbours along every dimension, and of examples, pairs are dropped together as often as chance has it.
    zero = (dropped == 0).double()
    for dimension in range(3):
        pairs = zero.unfold(dimension, 2, 1).prod(-1)
        assert pairs.mean().item() == pytest.approx(p * p, abs=6 * p / count**0.5)


def test_streams_leave_the_process_stream_alone_and_end_with_their_block() -> None:
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    with pytest.raises(KeyError), drawing_from(ExampleStreams(1, 0, [0], [4])):
        keep_mask((1, 4, 8), 0.5, torch.float32)
        raise KeyError
    assert torch.equal(torch.rand(4), expected)
    before = torch.get_rng_state()
    keep_mask((1, 4, 8), 0.5, torch.float32)
    assert not torch.equal(torch.get_rng_state(), before)


def test_whole_model_drops_alike_alone_and_in_company(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Embeddings, attention, both residuals, the last block's first position and the head: none is left out."""
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    torch.manual_seed(0)
    model = load_classifier(folder, 2).train()
    examples = [Example([2, 7, 8, 3], [0] * 4, 0), Example([2, 9, 10, 11, 12, 13, 3], [0] * 7, 1)]

    def logits(rows: list[int]) -> torch.Tensor:
        some = [examples[row] for row in rows]
        with drawing_from(ExampleStreams(1, 2, rows, [len(example.input_ids) for example in some])):
            return model(**collate(some).inputs)

    together = logits([0, 1])
    assert torch.allclose(together, torch.cat([logits([0]), logits([1])]), atol=1e-6)
    assert not torch.allclose(together, model(**collate(examples).inputs), atol=1e-3)


HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


def ratio(dropped: torch.Tensor, whole: torch.Tensor) -> float:
    return (dropped.double().mean() / whole.double().mean()).item()


@HALVES
def test_mean_is_kept_in_half_precision_too(dtype: torch.dtype) -> None:
    """PyTorch's own rounds 1/0.9 to 1.109375 in bfloat16: its mean is 0.9984 of what it was."""
    torch.manual_seed(0)
    x = (torch.rand(4000, 1000) + 0.5).to(dtype)
    leaf = x.clone().requires_grad_()
    dropped = dropout_from_bits(leaf, 0.1, True)
    kept = dropped != 0
    assert ratio(dropped, x * kept) == pytest.approx(1 / 0.9, rel=1e-4)
    dropped.backward(x)
    assert leaf.grad is not None and leaf.grad.dtype == dtype
    assert torch.equal(leaf.grad, dropped), "backward is not the same linear map as forward"
    if dtype == torch.bfloat16:
        theirs = torch.nn.functional.dropout(x, 0.1)
        assert ratio(theirs, x * (theirs != 0)) != pytest.approx(1 / 0.9, rel=1e-3)


@HALVES
@pytest.mark.parametrize("residual", [torch.float32, None])
def test_mean_of_what_is_added_to_a_residual_is_kept(dtype: torch.dtype, residual: torch.dtype | None) -> None:
    torch.manual_seed(0)
    x = (torch.rand(400, 1000) + 0.5).to(dtype)
    zeros = torch.zeros_like(x, dtype=residual)
    leaf = x.clone().requires_grad_()
    dropped = FAST.dropout_add(zeros, leaf, 0.1, True)
    assert ratio(dropped, x * (dropped != 0)) == pytest.approx(1 / 0.9, rel=2e-4)
    dropped.backward(x.to(dropped.dtype))
    assert leaf.grad is not None and ratio(leaf.grad, x * (dropped != 0)) == pytest.approx(1 / 0.9, rel=2e-4)


def test_mean_of_attention_over_ones_is_one_in_bfloat16() -> None:
    """Of ones, a row of weights gives the sum of those that are kept, times the scale; so does the way back."""
    torch.manual_seed(0)
    q, k = (torch.randn(64, 4, 64, 32).bfloat16() for _ in range(2))
    v = torch.ones(64, 4, 64, 32, dtype=torch.bfloat16, requires_grad=True)
    means = [ratio(fast_attention(q, k, v, None, 0.1), torch.ones(1)) for _ in range(8)]
    # A million weights a draw, of very unequal size: what is kept of them deviates by some 1e-3, over draws less.
    assert sum(means) / len(means) == pytest.approx(1.0, abs=4e-4)
    out = fast_attention(q, k, v, None, 0.1)
    out.backward(torch.ones_like(out))
    assert v.grad is not None  # every weight that is kept comes back once: as much as went out
    assert ratio(v.grad, out) == pytest.approx(1.0, abs=2e-4)


def test_gradients_of_attention_in_bfloat16_are_those_of_its_mask() -> None:
    """Beside float64, where autograd finds them, with the same mask."""
    torch.manual_seed(0)
    inputs = [torch.randn(8, 2, 48, 16).bfloat16() for _ in range(3)]
    gradient = torch.randn(8, 2, 48, 16).bfloat16()
    halves, doubles = (
        [x.detach().clone().to(d).requires_grad_() for x in inputs] for d in (torch.bfloat16, torch.float64)
    )
    for leaves in (halves, doubles):
        torch.manual_seed(1)
        fast_attention(*leaves, None, 0.1).backward(gradient.to(leaves[0].dtype))
    torch.manual_seed(1)
    kept, scale = keep_mask((8, 2, 48, 48), 0.1, torch.float64)
    q, k, v = (x.detach().double().requires_grad_() for x in inputs)
    ((q @ k.transpose(-1, -2) * 0.25).softmax(-1) * kept * scale @ v).backward(gradient.double())
    for ours, exact, by_autograd in zip(halves, doubles, (q, k, v), strict=True):
        assert ours.grad is not None and exact.grad is not None and by_autograd.grad is not None
        torch.testing.assert_close(exact.grad, by_autograd.grad, rtol=1e-10, atol=1e-12)
        # Along the exact one, where rounding averages out: a scale of 1.109375 on the way back would show.
        along = (ours.grad.double() * exact.grad).sum() / exact.grad.square().sum()
        assert along.item() == pytest.approx(1.0, abs=5e-4)


@pytest.mark.parametrize("family", REFERENCES)
def test_losses_of_a_family_do_not_depend_on_who_shares_a_batch(tmp_path: Path, family: str) -> None:
    """Products of other sizes round otherwise: 1e-5. DeBERTa's position vectors belong to no example."""
    save_checkpoint(tmp_path, family)
    draw = random.Random(0)
    rows = [Example([draw.randrange(5, 99) for _ in range(12)], [0] * 12, row % 2) for row in range(8)]
    shared = family == "deberta-v2"

    def losses(batch_size: int) -> list[float]:
        torch.manual_seed(0)
        recorder = Recorder(load_classifier(tmp_path, 2, hidden_dropout_prob=0.0 if shared else None))
        sizes = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": 8 // batch_size}
        config = TrainConfig(dropout_rng="example", eval_strategy="no", max_steps=2, learning_rate=3e-3, **sizes)
        fit(recorder.model, rows, {}, config, observer=recorder, pad_token_id=recorder.model.config.pad_token_id)
        return recorder.losses

    assert losses(8) == pytest.approx(losses(2), abs=1e-5)
    if shared:
        model = load_classifier(tmp_path, 2)
        with pytest.raises(MinitrainError, match="deberta-v2 also drops .* pass --hidden_dropout_prob 0 too"):
            make_state(model, TrainConfig(dropout_rng="example"))
