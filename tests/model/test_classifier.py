"""What holds for the model itself, whatever the family: padding, lengths, names, and evaluation without draws."""

from pathlib import Path

import pytest
import torch
from parity.reference import Twins, make_inputs, make_twins

from minitrain.errors import MinitrainError
from minitrain.model.layers import padding_mask
from minitrain.model.weights import load_encoder


@pytest.fixture
def twins(tmp_path: Path) -> Twins:
    return make_twins(tmp_path, num_labels=3)


def test_padding_does_not_change_logits(twins: Twins) -> None:
    inputs = make_inputs(twins.config, rows=1, length=9, padded=False)
    expected = twins.ours(**inputs)
    for length in (10, 16, 24):
        junk = torch.full((1, length - 9), 42)
        padded = twins.ours(
            torch.cat([inputs["input_ids"], junk], 1),
            torch.cat([inputs["attention_mask"], 0 * junk], 1),
            torch.cat([inputs["token_type_ids"], junk % 2], 1),
        )
        # Padding has probability 0 exactly, but sums of another length are added up in another order.
        assert (padded - expected).abs().max() < 1e-6


def test_a_batch_without_padding_has_no_mask_and_one_with_padding_hides_it_from_every_query() -> None:
    """Without a mask a GPU takes its fastest attention; the logits alone would not tell."""
    ones = torch.ones(2, 3, dtype=torch.int64)
    assert padding_mask(None) is None and padding_mask(ones) is None
    mask = padding_mask(torch.tensor([[1, 1, 1], [1, 0, 0]]))
    assert mask is not None and mask.shape == (2, 1, 1, 3) and mask.dtype == torch.bool
    assert mask[0].all() and mask[1].flatten().tolist() == [True, False, False]


def test_a_row_does_not_depend_on_the_company_it_keeps(twins: Twins) -> None:
    inputs = make_inputs(twins.config, rows=5, padded=False)
    together = twins.ours(**inputs)
    for row in range(5):
        alone = twins.ours(**{name: tensor[row : row + 1] for name, tensor in inputs.items()})
        # A matrix product of another size may be cut up differently.
        assert (together[row] - alone[0]).abs().max() < 1e-6


def test_every_real_token_and_its_type_change_the_logits(twins: Twins) -> None:
    inputs = make_inputs(twins.config, rows=1, length=6, padded=False)
    expected = twins.ours(**inputs)
    for position in range(6):
        for name, other in (("input_ids", 77), ("token_type_ids", 1 - int(inputs["token_type_ids"][0, position]))):
            changed = inputs[name].clone()
            changed[0, position] = other
            assert (twins.ours(**inputs | {name: changed}) - expected).abs().max() > 1e-4, (name, position)


def test_a_batch_longer_than_the_positions_is_an_error_that_names_both(twins: Twins) -> None:
    assert twins.ours(torch.ones(1, 24, dtype=torch.int64)).shape == (1, 3)
    with pytest.raises(MinitrainError, match=r"25 tokens long, the model has 24 positions: .*max_length=24"):
        twins.ours(torch.ones(1, 25, dtype=torch.int64))


def test_evaluation_draws_no_random_number(twins: Twins) -> None:
    before = torch.get_rng_state()
    inputs = make_inputs(twins.config)
    assert not twins.ours.training and torch.equal(twins.ours(**inputs), twins.ours(**inputs))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_encoder_gives_hidden_states_and_its_names_are_those_inside_the_classifier(tmp_path: Path) -> None:
    twins = make_twins(tmp_path)
    encoder = load_encoder(tmp_path, kernels="reference")
    inputs = make_inputs(twins.config)
    states = encoder(**inputs)
    assert states.shape == (5, 17, 32) and torch.equal(states, twins.ours.encoder(**inputs))
    inside = [name for name, _ in twins.ours.named_parameters() if name.startswith("encoder.")]
    assert [f"encoder.{name}" for name, _ in encoder.named_parameters()] == inside
