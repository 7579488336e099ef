"""Recursions along a window in about 3·√T steps instead of T, with their own gradients.

A window is cut into chunks of about √T positions. All chunks are advanced together, each from an
unknown start; a short loop over chunks then finds the starts.
"""

import math
from typing import Callable

import torch
from torch import Tensor

# A real number is one tensor, a complex one two: real part, imaginary part.
Number = tuple[Tensor, ...]
Complex = tuple[Tensor, Tensor]


def _chunks(window: int) -> tuple[int, int]:
    """Positions of a chunk and number of chunks."""
    size = max(1, math.isqrt(window))
    return size, -(-window // size)


def _cut(x: Tensor, value: float) -> Tensor:
    """`[B, T, C]` to `[size, B, chunks, C]`; the last chunk is filled up with a value."""
    size, count = _chunks(x.shape[1])
    missing = size * count - x.shape[1]
    if missing:
        x = torch.nn.functional.pad(x, (0, 0, 0, missing), value=value)
    return x.unflatten(1, (count, size)).permute(2, 0, 1, 3)


def _joined(parts: list[Tensor], window: int) -> Tensor:
    """The inverse of `_cut`, from the positions of a chunk."""
    return torch.stack(parts, 2).flatten(1, 2)[:, :window]


def _scan(decay: Number, x: Number, product: Callable[[Number, Number], Number]) -> Number:
    """s_t = decay_t s_{t−1} + x_t with s_0 = 0; all `[B, T, C]`. Without gradients."""

    def plus(a: Number, b: Number) -> Number:
        return tuple(one + other for one, other in zip(a, b))

    def chunk(a: Number, index: int) -> Number:
        return tuple(part[:, index] for part in a)

    window = x[0].shape[1]
    factors = list(zip(*(_cut(part, fill) for part, fill in zip(decay, (1.0, 0.0)))))
    terms = list(zip(*(_cut(part, 0.0) for part in x)))
    total, through = terms[0], factors[0]
    partial, products = [total], [through]
    for factor, term in zip(factors[1:], terms[1:]):
        total, through = plus(product(factor, total), term), product(factor, through)
        partial.append(total)
        products.append(through)
    start = tuple(torch.zeros_like(part) for part in chunk(total, 0))
    starts = [start]
    for index in range(total[0].shape[1] - 1):
        start = plus(product(chunk(through, index), start), chunk(total, index))
        starts.append(start)
    before = tuple(torch.stack(part, 1) for part in zip(*starts))
    sums = [plus(own, product(factor, before)) for own, factor in zip(partial, products)]
    return tuple(_joined(list(part), window) for part in zip(*sums))


def linear_scan(decay: Tensor, x: Tensor) -> Tensor:
    """s_t = decay_t s_{t−1} + x_t with s_0 = 0; all `[B, T, C]`. Without gradients."""
    return _scan((decay,), (x,), lambda a, b: (a[0] * b[0],))[0]


class _Memory(torch.autograd.Function):
    """s_t = decay_t s_{t−1} + x_t."""

    @staticmethod
    def forward(ctx, decay: Tensor, x: Tensor) -> Tensor:
        s = linear_scan(decay, x)
        ctx.save_for_backward(decay, s)
        return s

    @staticmethod
    def backward(ctx, ds: Tensor) -> tuple[Tensor, Tensor]:
        decay, s = ctx.saved_tensors
        # λ_t = ds_t + decay_{t+1} λ_{t+1}: the same recursion from the other end.
        following = torch.cat([decay[:, 1:], torch.zeros_like(decay[:, :1])], 1)
        dx = linear_scan(following.flip(1), ds.flip(1)).flip(1)
        previous = torch.cat([torch.zeros_like(s[:, :1]), s[:, :-1]], 1)
        return dx * previous, dx


def memory(decay: Tensor, x: Tensor) -> Tensor:
    """s_t = decay_t s_{t−1} + x_t with s_0 = 0; all `[B, T, C]`."""
    return _Memory.apply(decay, x)


def multiply(a: Complex, b: Complex) -> Complex:
    """a · b."""
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def reciprocal(a: Complex) -> Complex:
    """1 / a."""
    scale = 1 / (a[0] * a[0] + a[1] * a[1])
    return a[0] * scale, -a[1] * scale


def _half_chain(alpha: Complex, beta: float) -> Complex:
    """G_t = 1 / (α_t − β G_{t−1}) with G_0 = 0; all `[B, T, K]`.

    The positions of a chunk map the G before it to (a G + b) / (c G + d) with complex a to d; one
    more position maps that to 1 / (α − β (a G + b) / (c G + d)).
    """
    window = alpha[0].shape[1]
    # Positions that fill up the last chunk: any α will do.
    re, im = _cut(alpha[0], 1.0), _cut(alpha[1], -1.0)
    one, zero = torch.ones_like(re[0]), torch.zeros_like(re[0])
    a, b, c, d = (zero, zero), (one, zero), (-beta * one, zero), (re[0], im[0])

    def following(own: Complex, below: Complex, above: Complex) -> Complex:
        product = multiply(own, below)
        return product[0] - beta * above[0], product[1] - beta * above[1]

    for own in zip(re[1:], im[1:]):
        a, b, c, d = c, d, following(own, c, a), following(own, d, b)
        # All four times the same number are the same map: keeps them near 1.
        scale = 1 / (c[0].abs() + c[1].abs() + d[0].abs() + d[1].abs())
        a, b, c, d = ((x[0] * scale, x[1] * scale) for x in (a, b, c, d))
    start = (torch.zeros_like(re[0, :, 0]), torch.zeros_like(re[0, :, 0]))
    starts = [start]
    for i in range(re.shape[2] - 1):
        maps = [(x[0][:, i], x[1][:, i]) for x in (a, b, c, d)]
        top, bottom = (multiply(m, start) for m in (maps[0], maps[2]))
        top = (top[0] + maps[1][0], top[1] + maps[1][1])
        bottom = (bottom[0] + maps[3][0], bottom[1] + maps[3][1])
        start = multiply(top, reciprocal(bottom))
        starts.append(start)
    g = tuple(torch.stack(part, 1) for part in zip(*starts))
    found: list[Complex] = []
    for own_re, own_im in zip(re, im):
        g = reciprocal((own_re - beta * g[0], own_im - beta * g[1]))
        found.append(g)
    return tuple(_joined(list(part), window) for part in zip(*found))


def _complex_scan_backwards(factor: Complex, x: Complex) -> Complex:
    """λ_t = x_t + factor_t λ_{t+1}, 0 after the last; all `[B, T, K]`."""
    factor, x = (tuple(part.flip(1) for part in pair) for pair in (factor, x))
    return tuple(part.flip(1) for part in _scan(factor, x, multiply))


class _HalfChain(torch.autograd.Function):
    """G of a half chain. With w̄ = ∂ℓ/∂Re w + i ∂ℓ/∂Im w, dG_t/dα_t = −G_t² and
    dG_t/dG_{t−1} = β G_t² give λ_t = Ḡ_t + conj(β G_{t+1}²) λ_{t+1} and ᾱ_t = −conj(G_t²) λ_t."""

    @staticmethod
    def forward(ctx, re: Tensor, im: Tensor, beta: float) -> Complex:
        g = _half_chain((re, im), beta)
        ctx.save_for_backward(*g)
        ctx.beta = beta
        return g

    @staticmethod
    def backward(ctx, d_re: Tensor, d_im: Tensor) -> tuple[Tensor, Tensor, None]:
        g = ctx.saved_tensors
        square = multiply(g, g)
        conjugate = (square[0], -square[1])
        following = tuple(
            ctx.beta * torch.cat([part[:, 1:], torch.zeros_like(part[:, :1])], 1)
            for part in conjugate
        )
        sums = _complex_scan_backwards(following, (d_re, d_im))
        d_alpha = multiply(conjugate, sums)
        return -d_alpha[0], -d_alpha[1], None


def half_chain(alpha: Complex, beta: float) -> Complex:
    """G_t = 1 / (α_t − β G_{t−1}), G_1 = 1 / α_1; all `[B, T, K]`."""
    return _HalfChain.apply(*alpha, beta)


def full_chain(alpha: Complex, beta: float) -> Complex:
    """G_t = 1 / (L_t + R_t − α_t), L and R from either end; all `[B, T, K]`."""
    left = half_chain(alpha, beta)
    right = half_chain((alpha[0].flip(1), alpha[1].flip(1)), beta)

    def whole(alpha: Tensor, left: Tensor, right: Tensor) -> Tensor:
        # L_t = α_t − β / L_{t−1}, and R_t likewise.
        none = torch.zeros_like(left[:, :1])
        before = torch.cat([none, left[:, :-1]], 1)
        after = torch.cat([right.flip(1)[:, 1:], none], 1)
        return alpha - beta * (before + after)

    return reciprocal((whole(alpha[0], left[0], right[0]), whole(alpha[1], left[1], right[1])))
