"""The fast kernels against the reference ones, and the statistics of the dropout that draws by bits."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parity.reference import REFERENCES, make_inputs, make_labels, our_loss, save_checkpoint
from torch import Tensor, nn

from minitrain.kernels import attention as attentions
from minitrain.kernels import get_kernels, matmul, prepack
from minitrain.kernels.dropout import dropout_from_bits
from minitrain.kernels.fast import FAST
from minitrain.kernels.matmul import MATMULS, Matmul, choose_matmul, chosen_matmul, fastest_matmul, onednn_supports
from minitrain.kernels.prepack import by_onednn, unchanged_weights
from minitrain.kernels.reference import REFERENCE, Activation, attention
from minitrain.model.weights import load_classifier

SIGMAS = 5.0  # a fair sample leaves this bound once in two million; the seeds are fixed besides
COUNT = 1_000_003  # not divisible by 4, the elements of one random word


def ones_dropped(p: float, seed: int = 0, count: int = COUNT) -> Tensor:
    torch.manual_seed(seed)
    return dropout_from_bits(torch.ones(count), p, True)


def scale_of(p: float) -> float:
    """1 / (1 - p) for p rounded to 1/65536, as float32 holds it."""
    return torch.tensor(65536 / (65536 - round(p * 65536))).item()


@pytest.mark.parametrize("p", [0.001, 0.1, 0.25, 0.5, 0.9, 0.999])
def test_dropout_keeps_the_right_share(p: float) -> None:
    kept = ones_dropped(p).count_nonzero().item()
    assert abs(kept - COUNT * (1 - p)) < SIGMAS * math.sqrt(COUNT * p * (1 - p)) + COUNT / 131072  # rounding of p


@pytest.mark.parametrize(("p", "rarely"), [(1 / 65536, 0), (65535 / 65536, 1)])
def test_the_rarest_draw_comes_once_in_65536(p: float, rarely: int) -> None:
    """One value of the 16 bits, at either end: what is off by one elsewhere is off by a factor here."""
    count = 2**22
    seen = ((ones_dropped(p, count=count) != 0) == rarely).count_nonzero().item()
    assert abs(seen - count / 65536) < SIGMAS * math.sqrt(count / 65536)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_each_of_the_four_elements_of_a_word_is_kept_as_often(p: float) -> None:
    kept = ones_dropped(p)[: COUNT // 4 * 4].view(-1, 4).count_nonzero(dim=0)
    words = COUNT // 4
    assert ((kept - words * (1 - p)).abs() < SIGMAS * math.sqrt(words * p * (1 - p)) + words / 131072).all()


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_what_is_kept_is_scaled_exactly_and_the_mean_stays(p: float) -> None:
    dropped = ones_dropped(p)
    assert dropped.unique().tolist() == [0.0, scale_of(p)]
    assert abs(dropped.double().mean().item() - 1.0) < SIGMAS * math.sqrt(p / (1 - p) / COUNT)


def test_dropout_scales_each_value_it_keeps() -> None:
    x = torch.randn(1001)
    torch.manual_seed(4)
    dropped = dropout_from_bits(x, 0.1, True)
    assert torch.equal(dropped, x * ones_dropped(0.1, 4, 1001))


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 64, 1000])
def test_neighbours_are_dropped_independently(lag: int) -> None:
    kept = (ones_dropped(0.1) != 0).double()
    centred = kept - kept.mean()
    correlation = (centred[lag:] * centred[:-lag]).mean() / centred.square().mean()
    assert abs(correlation.item()) < SIGMAS / math.sqrt(COUNT - lag)


def test_two_draws_are_independent_and_a_seed_repeats_them() -> None:
    torch.manual_seed(1)
    x = torch.ones(COUNT)
    first, second = dropout_from_bits(x, 0.5, True), dropout_from_bits(x, 0.5, True)
    agreement = ((first != 0) == (second != 0)).double().mean().item()
    assert abs(agreement - 0.5) < SIGMAS * 0.5 / math.sqrt(COUNT)
    assert torch.equal(ones_dropped(0.5, 1), first) and not torch.equal(ones_dropped(0.5, 2), first)


@pytest.mark.parametrize("shape", [(0,), (1,), (2,), (3,), (4,), (5, 7), (2, 3, 5, 5), ()])
def test_any_number_of_elements_is_dropped(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.ones(shape)
    values = {v for _ in range(50) for v in dropout_from_bits(x, 0.5, True).flatten().tolist()}
    assert dropout_from_bits(x, 0.5, True).shape == shape
    assert values == (set() if shape == (0,) else {0.0, 2.0})


def test_a_transposed_view_is_dropped_as_its_copy_is() -> None:
    x = torch.randn(6, 10).T
    torch.manual_seed(0)
    dropped = dropout_from_bits(x, 0.3, True)
    torch.manual_seed(0)
    assert not x.is_contiguous() and torch.equal(dropped, dropout_from_bits(x.contiguous(), 0.3, True))


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False), (0.0, False)])
def test_without_dropout_x_itself_comes_back_and_nothing_is_drawn(p: float, training: bool) -> None:
    x, before = torch.randn(5), torch.get_rng_state()
    assert dropout_from_bits(x, p, training) is x
    assert torch.equal(torch.get_rng_state(), before)


def test_dropping_everything_gives_zeros_with_a_gradient_of_zero_as_in_torch() -> None:
    x = torch.randn(5, requires_grad=True)
    dropped = dropout_from_bits(x, 1.0, True)
    dropped.sum().backward()
    assert torch.equal(dropped, F.dropout(x, 1.0, True)) and x.grad is not None and not x.grad.any()


def test_the_gradient_is_the_mask_times_the_scale() -> None:
    x = torch.randn(33, 5, requires_grad=True)
    torch.manual_seed(8)
    dropout_from_bits(x, 0.2, True).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, ones_dropped(0.2, 8, 165).view(33, 5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dropout_keeps_the_dtype(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropped = dropout_from_bits(torch.ones(1000, dtype=dtype), 0.1, True)
    scale = torch.tensor(65536 / (65536 - 6554), dtype=dtype)
    assert dropped.dtype == dtype and torch.equal(dropped.unique(), torch.stack([scale * 0, scale]))


def test_the_fast_kernels_drop_by_bits_and_the_reference_ones_as_torch_does() -> None:
    x = torch.randn(4, 6, 10, 8)

    def drawn(dropout: object) -> Tensor:
        torch.manual_seed(2)
        return dropout(x, 0.1, True)  # type: ignore[operator]

    assert torch.equal(drawn(FAST.dropout), drawn(dropout_from_bits))
    assert torch.equal(drawn(REFERENCE.dropout), drawn(F.dropout))
    assert not torch.equal(drawn(dropout_from_bits), drawn(F.dropout))


def heads(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v of shape (3, 4, 9, 8) and the mask of rows with 9, 6 and 1 real tokens."""
    torch.manual_seed(seed)
    q, k, v = torch.randn(3, 3, 4, 9, 8)
    mask = (torch.arange(9) < torch.tensor([9, 6, 1])[:, None])[:, None, None, :].expand(-1, 1, 9, 9)
    return q, k, v, mask


@pytest.mark.parametrize("masked", [False, True])
def test_fast_attention_without_dropout_has_the_bits_of_the_reference(masked: bool) -> None:
    q, k, v, mask = heads()
    before = torch.get_rng_state()
    fast = FAST.attention(q, k, v, mask if masked else None, 0.0)
    assert torch.equal(fast, REFERENCE.attention(q, k, v, mask if masked else None, 0.0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("masked", [False, True])
def test_fast_attention_that_drops_nothing_equals_the_reference(masked: bool) -> None:
    """A probability that rounds to 0 takes the path with dropout and drops nothing."""
    q, k, v, mask = heads()
    torch.manual_seed(1)
    fast = FAST.attention(q, k, v, mask if masked else None, 1e-6)
    after = torch.get_rng_state()
    torch.manual_seed(1)
    assert not torch.equal(after, torch.get_rng_state())  # it drew: the fast path ran
    expected = attention(q, k, v, mask if masked else None, 0.0)
    assert (fast - expected).abs().max() < 1e-6  # float32: the order of two multiplications differs


@pytest.mark.parametrize("length", [9, 31, 32, 40])
def test_fast_attention_in_bfloat16_is_as_exact_whatever_the_length(length: int) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, length, 8).bfloat16()
    fast = FAST.attention(q, k, v, None, 1e-6)  # a probability that rounds to 0
    exact = attention(q.double(), k.double(), v.double(), None, 0.0)
    assert fast.dtype == torch.bfloat16
    assert (fast - exact).norm() < 2**-8 * exact.norm()  # bfloat16 keeps 8 bits


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_fast_attention_drops_probabilities_by_bits(p: float) -> None:
    q, k, v, mask = heads()
    torch.manual_seed(1)
    fast = FAST.attention(q, k, v, mask, p)
    scores = (q.double() @ k.double().transpose(-1, -2)) / math.sqrt(8)
    probabilities = scores.masked_fill(~mask, -math.inf).softmax(-1)
    expected = probabilities * ones_dropped(p, 1, probabilities.numel()).view_as(probabilities) @ v.double()
    assert (fast - expected).abs().max() < 1e-6  # float32 against float64
    torch.manual_seed(1)
    assert not torch.allclose(fast, attention(q, k, v, mask, p), atol=1e-3)


def test_fast_attention_keeps_the_mean_of_the_reference() -> None:
    q, k, v, mask = heads()
    torch.manual_seed(0)
    draws = torch.stack([FAST.attention(q, k, v, mask, 0.1) for _ in range(2000)]).double()
    error = draws.mean(0) - attention(q, k, v, mask, 0.0)
    # Of 864 elements none strays further than one of 864 fair ones would once in two thousand times.
    assert (error.abs() < SIGMAS * draws.std(0) / math.sqrt(2000) + 1e-6).all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("queries", [1, 9])
def test_the_gradients_of_fast_attention_are_those_of_its_formula(queries: int, masked: bool) -> None:
    q, k, v, mask = heads()
    q, mask = q[:, :, :queries], mask[:, :, :1]
    inputs = [part.clone().requires_grad_() for part in (q, k, v)]
    torch.manual_seed(1)
    out = FAST.attention(*inputs, mask if masked else None, 0.5)
    gradients = torch.autograd.grad(out.cos().sum(), inputs)
    exact = [part.double().requires_grad_() for part in (q, k, v)]
    scores = exact[0] @ exact[1].transpose(-1, -2) / math.sqrt(8)
    weights = (scores.masked_fill(~mask, -math.inf) if masked else scores).softmax(-1)
    expected = weights * ones_dropped(0.5, 1, weights.numel()).view_as(weights) @ exact[2]
    for ours, theirs in zip(gradients, torch.autograd.grad(expected.cos().sum(), exact), strict=True):
        assert (ours - theirs).abs().max() < 1e-6 * theirs.abs().max()  # float32 against float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_dropped_before_it_is_added_has_the_gradient_of_both_steps(dtype: torch.dtype) -> None:
    residual, x = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7).to(dtype).requires_grad_()
    torch.manual_seed(1)
    out = FAST.dropout_add(residual, x, 0.25, True)
    mask = ones_dropped(0.25, 1, 35).view(5, 7)
    assert out.dtype == torch.float32
    assert (out - (residual + x * mask)).abs().max() < 1e-6  # one rounding less
    g = torch.randn(5, 7)
    of_residual, of_x = torch.autograd.grad(out, (residual, x), g)
    assert torch.equal(of_residual, g) and torch.equal(of_x, (g * mask).to(dtype))


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False)])
def test_without_dropout_both_arithmetics_only_add(p: float, training: bool) -> None:
    residual, x = torch.randn(2, 5, 7)
    before = torch.get_rng_state()
    for arithmetic in (REFERENCE, FAST):
        assert torch.equal(arithmetic.dropout_add(residual, x, p, training), x + residual)
    assert torch.equal(before, torch.get_rng_state())


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    x = torch.randn(2, 24, requires_grad=True)
    q, k, v = (part.requires_grad_() for part in heads()[:3])
    for out, of in (
        (FAST.linear(x, *layers())[0], x),
        (FAST.attention(q, k, v, None, 0.1), q),
    ):
        (first,) = torch.autograd.grad(out.cos().sum(), of, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


def test_a_model_with_fast_kernels_gives_the_logits_and_gradients_of_the_reference(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, num_labels=3)
    off: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    rounds_to_off: dict[str, Any] = {name: 1e-6 for name in off}  # the fast path itself, dropping nothing
    fast = load_classifier(tmp_path, kernels="fast", **rounds_to_off).train()
    reference = load_classifier(tmp_path, kernels="reference", **off).train()
    inputs = make_inputs(type("Config", (), {"vocab_size": 99, "pad_token_id": 0, "type_vocab_size": 2}))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    logits, expected = fast(**inputs), reference(**inputs)
    assert not torch.equal(torch.get_rng_state(), before)  # reference dropout of 0 draws nothing: the fast path ran
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()
    our_loss(logits, make_labels(3, 5)).backward()
    our_loss(expected, make_labels(3, 5)).backward()
    largest = max(p.grad.abs().max() for p in reference.parameters() if p.grad is not None)
    for ours, theirs in zip(fast.parameters(), reference.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        # Against the largest of all gradients: those of the key biases are 0 but for rounding.
        assert (ours.grad - theirs.grad).abs().max() < 1e-5 * max(theirs.grad.abs().max(), 1e-3 * largest)


def layers(dtype: torch.dtype = torch.float32) -> list[nn.Linear]:
    """Three linear layers of unlike widths on the same 24 inputs."""
    torch.manual_seed(0)
    return [nn.Linear(24, width, dtype=dtype) for width in (8, 40, 3)]


def outputs_and_gradients(arithmetic: str, some: list[nn.Linear], x: Tensor, bf16: bool = False) -> list[Tensor]:
    """Outputs of the layers, then the gradients of x, weights and biases; of a loss in which all have a share."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        out = get_kernels(arithmetic).linear(x, *some)
    loss = torch.stack([(part.double() * (i + 1)).cos().sum() for i, part in enumerate(out)]).sum()
    parameters = [p for layer in some for p in layer.parameters()]
    return [*out, *torch.autograd.grad(loss, [x, *parameters])]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_joint_products_are_those_of_each_layer(count: int, dtype: torch.dtype) -> None:
    some, x = layers(dtype)[:count], torch.randn(2, 5, 24, dtype=dtype)
    fast, plain = (outputs_and_gradients(arithmetic, some, x) for arithmetic in ("fast", "reference"))
    for ours, theirs in zip(fast, plain, strict=True):
        assert ours.dtype == theirs.dtype == dtype and ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()  # float32: products of other shapes


@pytest.mark.parametrize("count", [1, 3])
def test_joint_products_in_bfloat16_are_as_exact_as_autocast(count: int) -> None:
    some, x = layers()[:count], torch.randn(2, 5, 24)
    exact = outputs_and_gradients("reference", some, x)
    fast, plain = (outputs_and_gradients(arithmetic, some, x, bf16=True) for arithmetic in ("fast", "reference"))
    for ours, theirs, true in zip(fast, plain, exact, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        # bfloat16 keeps 8 bits: each is off by about 1/256, and neither by much more than the other.
        assert (ours - true).norm() < 2 * (theirs - true).norm() + 1e-3 * true.norm()


@pytest.mark.parametrize("name", MATMULS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_onednn_computes_the_products_that_pytorch_does(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    shapes = {
        "output": ((7, 24), (5, 24)),
        "gradient of x": ((7, 5), (5, 24)),
        "gradient of weight": ((7, 5), (7, 24)),
    }
    first, second = (torch.randn(shape).to(dtype) for shape in shapes[name])
    bias = torch.randn(5).to(dtype) if name == "output" else None
    if not onednn_supports(dtype):  # a processor without bfloat16: never asked for it
        assert matmul.available_matmuls(name, dtype) == MATMULS[name][:1]
        return
    plain, onednn = (multiply(first, second, bias) for multiply in MATMULS[name])
    assert plain.shape == onednn.shape
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2  # a sum of 24 in another order; bfloat16 keeps 8 bits
    assert (plain - onednn).abs().max() <= tolerance * plain.abs().max()


@pytest.mark.parametrize(("slow", "chosen"), [(0, 1), (1, 0), (None, 0)])
def test_the_product_that_is_clearly_faster_is_chosen(
    slow: int | None, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of the same work stands for the slower product; without, both are the same and PyTorch's own is kept."""
    calls = [0, 0]

    def candidate(which: int) -> Matmul:
        def way(first: Tensor, second: Tensor, bias: Tensor | None) -> Tensor:
            calls[which] += 1
            for _ in range(8 if which == slow else 2):
                first @ second
            return first

        return way

    pair = candidate(0), candidate(1)
    monkeypatch.setitem(MATMULS, "output", pair)
    monkeypatch.setattr(matmul, "_chosen", {})
    assert fastest_matmul("output", torch.float32) is pair[chosen]
    assert min(calls) > 0
    tried = list(calls)
    fastest_matmul("output", torch.float32)
    assert calls == tried  # measured once
    choose_matmul({"output, torch.float32": 1 - chosen, "output, torch.bfloat16": 7, "elsewhere": 0})
    assert fastest_matmul("output", torch.float32) is pair[1 - chosen]
    assert chosen_matmul(torch.float32)["output, torch.float32"] == 1 - chosen
    assert calls == tried or slow is None  # told, not measured


def test_in_bfloat16_nothing_is_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch and oneDNN are one library there: what times them would choose by chance."""
    monkeypatch.setattr(matmul, "_chosen", {})
    monkeypatch.setattr(matmul, "_seconds", lambda *_: pytest.fail("timed"))
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    expected = {"output": int(native), "gradient of x": 0, "gradient of weight": 0}
    assert chosen_matmul(torch.bfloat16) == {f"{name}, torch.bfloat16": way for name, way in expected.items()}


def test_a_processor_without_bfloat16_trains_in_it_all_the_same(tmp_path: Path) -> None:
    """oneDNN refuses there; it is told to leave the instructions alone that this processor may have."""
    save_checkpoint(tmp_path)
    code = f"""
import torch
from minitrain import TrainConfig, load_classifier
from minitrain.data.batch import Batch
from minitrain.training.setup import make_state
from minitrain.training.step import StepSettings, train_step
assert not torch.ops.mkldnn._is_mkldnn_bf16_supported()
state = make_state(load_classifier({str(tmp_path)!r}), TrainConfig(bf16=True))
ids = torch.arange(8).view(2, 4)
batch = Batch(ids, torch.ones_like(ids), torch.zeros_like(ids), torch.tensor([0, 1]))
print(*train_step(state, [batch], 1e-3, StepSettings(bf16=True)))
"""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    loss, norm = map(float, done.stdout.split())
    assert 0.5 < loss < 1.0 and norm > 0


def test_the_time_of_a_product_is_the_processors_and_of_one_thread() -> None:
    """What else a busy machine does must not decide."""
    threads = []

    def waiting(first: Tensor, second: Tensor, bias: Tensor | None) -> Tensor:
        threads.append(torch.get_num_threads())
        time.sleep(0.02)
        return first

    before = torch.get_num_threads()
    waited, multiplied = matmul._seconds([waiting, MATMULS["output"][0]], *torch.ones(2, 512, 512))
    assert waited < 0.01 and waited < multiplied
    assert threads == [1] * 5 and torch.get_num_threads() == before


def test_onednn_carries_a_whole_step_where_it_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path)
    inputs = make_inputs(type("Config", (), {"vocab_size": 99, "pad_token_id": 0, "type_vocab_size": 2}))
    model = load_classifier(tmp_path, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    gradients = []
    for which in (0, 1):
        used: list[str] = []

        def choice(name: str, dtype: torch.dtype, which: int = which, used: list[str] = used) -> Matmul:
            used.append(name)
            return MATMULS[name][which]

        monkeypatch.setattr(matmul, "fastest_matmul", choice)
        our_loss(model(**inputs), make_labels(2, 5)).backward()
        assert set(used) == set(MATMULS)
        gradients.append([p.grad for p in model.parameters()])
        model.zero_grad()
    largest = max(g.abs().max() for g in gradients[0] if g is not None)
    for plain, onednn in zip(*gradients, strict=True):
        assert plain is not None and onednn is not None
        assert (plain - onednn).abs().max() < 1e-5 * max(plain.abs().max(), 1e-3 * largest)


class Tripled(nn.Linear):
    """A layer whose weight and bias do not say all of it."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


def test_a_subclass_and_a_hook_are_called_in_training_too() -> None:
    x, layer = torch.randn(2, 24), Tripled(24, 8)
    assert torch.equal(FAST.linear(x, layer)[0], layer(x))
    hooked, seen = nn.Linear(24, 8), []
    hooked.register_forward_hook(lambda *_: seen.append(1))
    FAST.linear(x, hooked)
    assert seen == [1]


def test_autocast_leaves_double_precision_alone() -> None:
    (layer,), x = layers(torch.float64)[:1], torch.randn(2, 24, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(FAST.linear(x, layer)[0], layer(x))
        assert FAST.linear(x, layer)[0].dtype == torch.float64


def test_a_row_that_may_look_nowhere_harms_no_other() -> None:
    q, k, v, mask = heads()
    mask = mask[:, :, :1].clone()
    mask[2] = False
    inputs = [part.clone().requires_grad_() for part in (q, k, v)]
    out = FAST.attention(*inputs, mask, 0.1)
    assert out.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(out[:2].sum(), inputs))


def test_frozen_layers_get_no_gradient() -> None:
    x, layer = torch.randn(2, 24, requires_grad=True), nn.Linear(24, 8).requires_grad_(False)
    (of_x,) = torch.autograd.grad(FAST.linear(x, layer)[0].sum(), x)
    assert torch.allclose(of_x, layer.weight.sum(0).expand(2, -1), atol=1e-6) and layer.weight.grad is None


@pytest.mark.parametrize("biases", [[False], [False, False, False], [True, False, True]])
def test_layers_without_bias_and_mixed_ones_are_those_of_each_layer(biases: list[bool]) -> None:
    some, x = [nn.Linear(24, 8, bias=bias) for bias in biases], torch.randn(2, 5, 24)
    fast, plain = (outputs_and_gradients(arithmetic, some, x) for arithmetic in ("fast", "reference"))
    for ours, theirs in zip(fast, plain, strict=True):
        assert ours.shape == theirs.shape and (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_takes_the_fast_way_with_a_bias_and_without(bias: bool) -> None:
    (out,) = FAST.linear(torch.randn(2, 24), nn.Linear(24, 8, bias=bias))
    assert out.grad_fn is not None and type(out.grad_fn).__name__ == "JointLinearBackward"


def test_no_gradient_is_computed_for_an_input_that_needs_none() -> None:
    (out,) = FAST.linear(torch.randn(2, 24), layers()[0])
    assert out.requires_grad
    out.sum().backward()


def test_in_evaluation_the_arithmetics_agree(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    inputs = make_inputs(type("Config", (), {"vocab_size": 99, "pad_token_id": 0, "type_vocab_size": 2}))
    fast, reference = load_classifier(tmp_path, kernels="fast"), load_classifier(tmp_path, kernels="reference")
    expected = reference(**inputs)
    assert (fast(**inputs) - expected).abs().max() < 1e-5 * expected.abs().max()  # joint products: other last bits


def count_joined(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many parts each call of `joined` is given in `prepack`, from here on."""
    counts: list[int] = []
    joined = prepack.joined

    def counting(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        counts.append(len(parts))
        return joined(parts, dtype)

    monkeypatch.setattr(prepack, "joined", counting)
    return counts


@pytest.mark.parametrize("passes", [3, 4])  # from 4 on, weights are laid out
@pytest.mark.parametrize("bf16", [False, True])
def test_weights_that_do_not_change_are_joined_once(
    bf16: bool, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, x = layers(), torch.randn(passes, 2, 5, 24)
    laid: list[Tensor] = []
    lay_out = prepack.to_onednn_layout
    monkeypatch.setattr(prepack, "to_onednn_layout", lambda weight: laid.append(weight) or lay_out(weight))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16), torch.no_grad():
        expected = [REFERENCE.linear(part, *some) for part in x]
        counts = count_joined(monkeypatch)
        with unchanged_weights(passes):
            out = [FAST.linear(part, *some) for part in x]
            assert counts == [3, 3]  # weights and biases, for the first pass
            FAST.linear(x[0], some[0])
            assert counts == [3, 3, 1, 1]  # other company, another product
    assert [len(weight) for weight in laid] == (
        [51, 8] if bf16 and passes == 4 and by_onednn(torch.bfloat16, torch.device("cpu")) else []
    )
    for ours, theirs in zip(out, expected, strict=True):
        for first, second in zip(ours, theirs, strict=True):
            assert first.dtype == second.dtype and first.shape == second.shape
            # Products of other shapes; bfloat16 keeps 8 bits.
            assert (first - second).abs().max() < (1e-2 if bf16 else 1e-5) * second.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", [F.gelu, F.relu, torch.tanh])
@pytest.mark.parametrize("passes", [1, 4])
def test_what_follows_a_layer_may_be_computed_with_it(
    dtype: torch.dtype, activation: Activation, passes: int
) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(24, 40), torch.randn(2, 5, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16), torch.no_grad():
        plain = REFERENCE.linear_act(x, layer, activation)
        calls: list[bool] = []
        with unchanged_weights(passes):
            packed = prepack.prepacked_weights()
            assert packed is not None
            multiply = packed.linear
            packed.linear = lambda *args, gelu=False: calls.append(gelu) or multiply(*args, gelu=gelu)  # type: ignore[method-assign]
            fast = FAST.linear_act(x, layer, activation)
    exact = activation(layer.double()(x.double()))
    assert calls == [activation is F.gelu and by_onednn(dtype, torch.device("cpu"))]
    assert fast.dtype == plain.dtype == dtype and fast.shape == plain.shape
    # bfloat16 keeps 8 bits, float32 24: no further from the truth than the plain steps are.
    assert (fast - exact).norm() < 1.1 * (plain - exact).norm() + 1e-6 * exact.norm()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("queries", [1, 9])
def test_keys_that_fill_up_are_looked_at_by_nobody(
    queries: int, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v, mask = heads()
    q, k, v = (part.bfloat16() for part in (q[:, :, :queries], k, v))
    mask = mask[:, :, :1]
    lengths: list[int] = []

    def plain(q: Tensor, k: Tensor, *rest: Any) -> Tensor:
        lengths.append(k.size(2))
        return attention(q, k, *rest)

    monkeypatch.setattr(attentions, "attention", plain)
    expected = attention(q.float(), k.float(), v.float(), mask if masked else None, 0.0)
    with torch.no_grad():
        out = FAST.attention(q, k, v, mask if masked else None, 0.0)
    assert lengths == [16] and out.shape == expected.shape and out.dtype == torch.bfloat16
    assert (out - expected).abs().max() < 2e-2 * expected.abs().max()  # bfloat16 keeps 8 bits
    FAST.attention(q, k, v, None, 0.0)
    assert lengths == [16, 9]  # gradients are wanted: as it is


def test_of_sixteen_keys_a_boolean_mask_gives_the_bits_that_it_gives_pytorch() -> None:
    q, k, v, mask = (part.repeat(1, 1, 1, 16)[..., :16] for part in heads())
    q, k, v = (F.pad(part, (0, 0, 0, 7), value=0.5).bfloat16() for part in (q, k, v))
    mask = mask[:, :, :1]
    assert not mask.all() and mask.size(3) == k.size(2) == 16
    with torch.no_grad():
        assert torch.equal(FAST.attention(q, k, v, mask, 0.0), attention(q, k, v, mask, 0.0))


def test_weights_may_change_before_and_after() -> None:
    (layer,), x = layers()[:1], torch.randn(2, 24)
    with torch.no_grad():
        for _ in range(2):
            layer.weight.mul_(2.0)
            with unchanged_weights(1):
                assert torch.allclose(FAST.linear(x, layer)[0], layer(x), atol=1e-6)
        layer.weight.mul_(2.0)
        assert torch.allclose(FAST.linear(x, layer)[0], layer(x), atol=1e-6)


def test_where_gradients_are_wanted_they_flow_even_if_weights_are_said_not_to_change() -> None:
    (layer,), x = layers()[:1], torch.randn(2, 24)
    with unchanged_weights(1):
        FAST.linear(x, layer)[0].sum().backward()
    assert layer.weight.grad is not None and torch.allclose(layer.weight.grad, x.sum(0).expand(8, -1), atol=1e-6)


@pytest.mark.parametrize("family", REFERENCES)
def test_in_bfloat16_every_family_is_evaluated_as_exactly_as_by_the_reference(family: str, tmp_path: Path) -> None:
    config = save_checkpoint(tmp_path, family).config
    fast, plain = (load_classifier(tmp_path, kernels=kernels) for kernels in ("fast", "reference"))
    batches = [make_inputs(config, length=length, padded=length % 2 == 1) for length in (5, 8, 16, 19, 24)]
    with torch.no_grad(), unchanged_weights(len(batches)):
        exact = torch.cat([plain(**inputs) for inputs in batches])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours, theirs = (torch.cat([model(**inputs) for inputs in batches]) for model in (fast, plain))
    assert not torch.equal(theirs, exact)
    if by_onednn(torch.bfloat16, torch.device("cpu")):  # else both may take the same products
        assert not torch.equal(ours, theirs)
    assert (ours - exact).norm() < 1.5 * (theirs - exact).norm()  # two roundings to 8 bits of the same function


def test_the_last_block_computes_the_first_position_alone_where_a_head_reads_no_other(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    inputs = make_inputs(type("Config", (), {"vocab_size": 99, "pad_token_id": 0, "type_vocab_size": 2}))
    model = load_classifier(tmp_path)
    first, whole = model.encoder(**inputs, cls_only=True), model.encoder(**inputs)
    assert first.shape == (*whole.shape[:1], 1, whole.size(2))
    assert (first[:, 0] - whole[:, 0]).abs().max() < 1e-5 * whole.abs().max()
    widths: list[int] = []
    model.encoder.blocks[-1].register_forward_hook(lambda module, args, out: widths.append(out.size(1)))
    model(**inputs)
    load_classifier(tmp_path, kernels="reference")(**inputs)
    assert widths == [1]
