"""Recurrences and convolutions along a window, with their gradients.

On a CPU the selective scan and the convolution run in C (`scan.c`, compiled once with the system's
compiler into the cache folder); on a GPU, or without a compiler, in PyTorch, scans by doubling.
"""

import ctypes
import functools
import hashlib
import os
import pathlib
import subprocess
import tempfile

import torch
import torch.nn.functional as F


def _doubling(decay, term):
    """h_t = decay_t h_{t-1} + term_t along dimension 1, in log2(T) rounds."""
    reach = 1
    while reach < term.shape[1]:
        later = term[:, reach:] + decay[:, reach:] * term[:, :-reach]
        term = torch.cat([term[:, :reach], later], 1)
        decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], 1)
        reach *= 2
    return term


class _Recurrence(torch.autograd.Function):
    """A linear recurrence, whose adjoint is one, too: backwards, with the next step's decay."""

    @staticmethod
    def forward(ctx, decay, term):
        states = _doubling(decay, term)
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    def backward(ctx, gradient):
        decay, states = ctx.saved_tensors
        following = torch.cat([decay[:, 1:], torch.zeros_like(decay[:, :1])], 1)
        adjoint = _doubling(following.flip(1), gradient.flip(1)).flip(1)
        before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], 1)
        return adjoint * before, adjoint


recurrence = _Recurrence.apply


@functools.cache
def _library():
    """The compiled scan; None without a compiler."""
    source = pathlib.Path(__file__).with_name("scan.c")
    flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
    compiler = os.environ.get("CC", "cc")
    key = hashlib.sha256(source.read_bytes() + repr((flags, compiler)).encode()).hexdigest()[:16]
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    target = cache / "resnet-bk" / f"scan-{key}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = pathlib.Path(folder) / "scan.so"
            try:
                subprocess.run([compiler, *flags, source, "-o", made, "-lm"], check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"no C compiler ({error}): the scan runs in PyTorch, slower", flush=True)
                return None
            os.replace(made, target)
    return ctypes.CDLL(str(target))


def _compiled(x):
    """Whether the library serves such an input."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and _library() is not None


def _call(function, sizes, arrays):
    """Calls a function of the library with sizes and the addresses of arrays."""
    sizes = [ctypes.c_size_t(size) for size in sizes]
    function(*sizes, *[ctypes.c_void_p(array.data_ptr()) for array in arrays])


class _Selective(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dt, x, b, out, a):
        dt, x, b, out, a = (part.contiguous() for part in (dt, x, b, out, a))
        ctx.save_for_backward(dt, x, b, out, a)
        y = torch.empty_like(x)
        sizes = (*x.shape[1:], b.shape[2])
        scratch = x.new_empty(2 * sizes[0] * a.numel())
        for i in range(len(x)):
            arrays = (dt[i], x[i], b[i], out[i], a, y[i], scratch)
            _call(_library().scan_forward, sizes, arrays)
        return y

    @staticmethod
    def backward(ctx, dy):
        dt, x, b, out, a = ctx.saved_tensors
        dy = dy.contiguous()
        d_dt, d_x, d_b, d_out = (torch.empty_like(part) for part in (dt, x, b, out))
        d_a = torch.zeros_like(a)
        sizes = (*x.shape[1:], b.shape[2])
        scratch = x.new_empty((2 * sizes[0] + 1) * a.numel())
        for i in range(len(x)):
            inputs = (dt[i], x[i], b[i], out[i], a, dy[i])
            outputs = (d_dt[i], d_x[i], d_b[i], d_out[i], d_a, scratch)
            _call(_library().scan_backward, sizes, inputs + outputs)
        return d_dt, d_x, d_b, d_out, d_a


def selective(dt, x, b, out, a):
    """The selective scan of Mamba without its skip.

    dt and x are [B, T, C], b and out [B, T, N], a [N, C] and negative; the result is [B, T, C].
    """
    if _compiled(x):
        return _Selective.apply(dt, x, b, out, a)
    decay = (dt[:, :, None] * a).exp()
    term = b[..., None] * (dt * x)[:, :, None]
    states = recurrence(decay.flatten(2), term.flatten(2)).view(term.shape)
    return (out[..., None] * states).sum(2)


def half_chain(v, diagonal, eta):
    """G of the half chain as real and imaginary parts; v is [B, T, K]."""
    real, imaginary = [], []
    g_re = g_im = torch.zeros_like(v[:, 0])
    for potential in v.unbind(1):
        re, im = diagonal + potential - g_re, -eta - g_im
        square = re * re + im * im
        g_re, g_im = re / square, -im / square
        real.append(g_re)
        imaginary.append(g_im)
    return torch.stack(real, 1), torch.stack(imaginary, 1)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, taps, bias):
        x, taps, bias = (part.contiguous() for part in (x, taps, bias))
        ctx.save_for_backward(x, taps)
        y = torch.empty_like(x)
        sizes = (*x.shape[1:], len(taps))
        for i in range(len(x)):
            _call(_library().convolve_forward, sizes, (x[i], taps, bias, y[i]))
        return y

    @staticmethod
    def backward(ctx, dy):
        x, taps = ctx.saved_tensors
        dy = dy.contiguous()
        d_x, d_taps, d_bias = torch.empty_like(x), torch.zeros_like(taps), torch.zeros_like(taps[0])
        sizes = (*x.shape[1:], len(taps))
        for i in range(len(x)):
            arrays = (x[i], taps, dy[i], d_x[i], d_taps, d_bias)
            _call(_library().convolve_backward, sizes, arrays)
        return d_x, d_taps, d_bias


def convolve(x, taps, bias):
    """Causal convolution of each channel; taps are [width, C], the oldest position first."""
    if _compiled(x):
        return _Convolution.apply(x, taps, bias)
    y = bias + x * taps[-1]
    for age in range(1, len(taps)):
        y = y + F.pad(x, (0, 0, age, 0))[:, :-age] * taps[-1 - age]
    return y
