"""Checks the compiled scan and convolution, and recurrences by doubling, against the definitions:

    python check.py
"""

import torch

import scan


def selective(dt, x, b, out, a):
    """The definition."""
    h, rows = torch.zeros_like(b[:, 0, :, None] * x[:, :1]), []
    for t in range(x.shape[1]):
        h = (dt[:, t, None] * a).exp() * h + (dt[:, t] * x[:, t])[:, None] * b[:, t, :, None]
        rows.append((out[:, t, :, None] * h).sum(1))
    return torch.stack(rows, 1)


def convolve(x, taps, bias):
    """The definition, by PyTorch's own convolution."""
    steps, channels = x.shape[1:]
    weights = taps.T[:, None]
    y = torch.conv1d(x.transpose(1, 2), weights, bias, padding=len(taps) - 1, groups=channels)
    return y[:, :, :steps].transpose(1, 2)


def recurrence(decay, term):
    """The definition."""
    h, rows = torch.zeros_like(term[:, 0]), []
    for t in range(term.shape[1]):
        h = decay[:, t] * h + term[:, t]
        rows.append(h)
    return torch.stack(rows, 1)


def compare(name, function, definition, inputs):
    """Values and gradients of both, in f32 and in f64, where nothing is compiled."""
    exact = [x.double().requires_grad_() for x in inputs]
    expected = definition(*exact)
    direction = torch.randn_like(expected)
    expected = (expected, *torch.autograd.grad((expected * direction).sum(), exact))
    for dtype, tolerance in [(torch.float32, 1e-4), (torch.float64, 1e-12)]:
        own = [x.to(dtype).requires_grad_() for x in inputs]
        found = function(*own)
        found = (found, *torch.autograd.grad((found * direction.to(dtype)).sum(), own))
        errors = [(a.double() - b).abs().max().item() for a, b in zip(found, expected)]
        print(f"{name}, {dtype}: largest error {max(errors):.1e}")
        if max(errors) > tolerance:
            raise SystemExit(f"{name} is wrong")


def main():
    torch.manual_seed(1)
    for steps in (1, 2, 3, 13):
        for states in (1, 4):
            shape, inner = (2, steps, 5), (2, steps, states)
            inputs = [torch.rand(shape), torch.randn(shape), torch.randn(inner)]
            inputs += [torch.randn(inner), -torch.rand(states, 5)]
            compare(f"scan of {steps}, {states} states", scan.selective, selective, inputs)
        inputs = [torch.randn(2, steps, 5), torch.randn(4, 5), torch.randn(5)]
        compare(f"convolution of {steps}", scan.convolve, convolve, inputs)
        inputs = [torch.rand(2, steps, 5), torch.randn(2, steps, 5)]
        compare(f"recurrence of {steps}", scan.recurrence, recurrence, inputs)


if __name__ == "__main__":
    main()
