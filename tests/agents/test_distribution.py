from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Categorical

from slt_gym.agents.distribution import ProposalDistribution


def draw_logits(rows: int = 5, proposals: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, proposals)) * 2)


def test_log_probabilities_and_entropy_are_the_categoricals() -> None:
    logits = draw_logits().requires_grad_()
    ours, reference = ProposalDistribution(logits), Categorical(logits=logits)
    index = torch.tensor([0, 3, 11, 7, 7])
    torch.testing.assert_close(ours.log_prob(index), reference.log_prob(index))
    torch.testing.assert_close(ours.entropy(), reference.entropy())
    for value, expected in (
        (ours.log_prob(index), reference.log_prob(index)),
        (ours.entropy(), reference.entropy()),
    ):
        gradient = torch.autograd.grad(value.sum(), logits, retain_graph=True)[0]
        wanted = torch.autograd.grad(expected.sum(), logits, retain_graph=True)[0]
        torch.testing.assert_close(gradient, wanted)


def test_samples_are_as_frequent_as_they_are_probable() -> None:
    logits = draw_logits(rows=2)
    generator = torch.Generator().manual_seed(0)
    draws = 40_000
    distribution = ProposalDistribution(logits.repeat_interleave(draws, dim=0))
    index = distribution.sample(generator).reshape(2, draws)
    p = torch.softmax(logits, dim=1)
    share = torch.stack([torch.bincount(row, minlength=12) for row in index]) / draws
    # Five standard deviations of a binomial share.
    assert (share - p).abs().le(5 * (p * (1 - p) / draws).sqrt() + 1e-9).all()


def test_the_mode_is_the_first_of_equals() -> None:
    logits = torch.zeros(3, 6)
    logits[1, 2] = logits[1, 4] = 1.0
    logits[2, 5] = 1.0
    assert ProposalDistribution(logits).mode().tolist() == [0, 2, 5]


def test_the_same_generator_draws_the_same() -> None:
    distribution = ProposalDistribution(draw_logits(rows=200))
    first, second, other = (
        distribution.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    ProposalDistribution(draw_logits()).sample(torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_impossible_proposals_are_never_drawn() -> None:
    logits = torch.full((500, 4), -torch.inf, dtype=torch.float64)
    logits[:, 1:3] = 0.0
    index = ProposalDistribution(logits).sample(torch.Generator().manual_seed(0))
    assert set(index.tolist()) == {1, 2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_are_those_of_torch(dtype: torch.dtype) -> None:
    logits = draw_logits(rows=40, proposals=1024).to(dtype)
    ours, theirs = (torch.Generator().manual_seed(5) for _ in range(2))
    for _ in range(3):
        expected = torch.multinomial(torch.softmax(logits, 1), 1, generator=theirs)[:, 0]
        assert torch.equal(ProposalDistribution(logits).sample(ours), expected)


def test_samples_do_not_depend_on_how_a_batch_is_divided() -> None:
    logits = draw_logits(rows=12, proposals=300)
    whole = ProposalDistribution(logits).sample(torch.Generator().manual_seed(3))
    parts = [
        ProposalDistribution(part).sample(torch.Generator().manual_seed(3), i, 3)
        for i, part in enumerate(logits.chunk(3))
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_the_divergence_is_the_categoricals() -> None:
    p, q = draw_logits(seed=1), draw_logits(seed=2)
    expected = torch.distributions.kl_divergence(Categorical(logits=p), Categorical(logits=q))
    ours = ProposalDistribution(p).divergence(ProposalDistribution(q))
    torch.testing.assert_close(ours, expected)
