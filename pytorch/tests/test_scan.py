"""Recursions against plain loops in f64, and gradients by differences."""

import pytest
import torch

from resnet_bk.scan import full_chain, half_chain, memory

WINDOWS = [1, 2, 3, 7, 16, 50]


def alpha(window, seed=1):
    torch.manual_seed(seed)
    re = -2 + 3 * torch.randn(2, window, 3, dtype=torch.float64)
    im = -torch.rand(2, window, 3, dtype=torch.float64) - 0.01
    return re, im


def loop(alpha, beta):
    a, g, found = torch.complex(*alpha), 0, []
    for t in range(a.shape[1]):
        g = 1 / (a[:, t] - beta * g)
        found.append(g)
    return torch.stack(found, 1)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("beta", [0.0, 0.7, 1.0])
def test_chains_are_their_recursions(window, beta):
    pair = alpha(window)
    left = loop(pair, beta)
    assert torch.allclose(torch.complex(*half_chain(pair, beta)), left, atol=1e-9)
    right = loop([part.flip(1) for part in pair], beta).flip(1)
    exact = 1 / (1 / left + 1 / right - torch.complex(*pair))
    assert torch.allclose(torch.complex(*full_chain(pair, beta)), exact, atol=1e-9)


def test_a_long_chain_in_single_precision():
    re, im = alpha(4096)
    found = torch.complex(*half_chain((re.float(), im.float()), 1.0))
    assert (found - loop((re, im), 1.0)).abs().max() < 1e-3


@pytest.mark.parametrize("window", WINDOWS)
def test_memories_are_their_recursion(window):
    torch.manual_seed(2)
    decay, x = torch.rand(2, window, 5), torch.randn(2, window, 5)
    s, found = 0, memory(decay, x)
    for t in range(window):
        s = decay[:, t] * s + x[:, t]
        assert torch.allclose(found[:, t], s, atol=1e-5)


@pytest.mark.parametrize("window", [1, 2, 7, 10])
def test_gradients(window):
    pair = [part.requires_grad_() for part in alpha(window)]
    for chain in (half_chain, full_chain):
        assert torch.autograd.gradcheck(lambda re, im: chain((re, im), 0.8), pair)
    torch.manual_seed(3)
    inputs = [torch.rand(2, window, 3, dtype=torch.float64).requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(memory, inputs)
