"""The blocks that are compared, as PyTorch modules.

Names of parameters are those of the files that `resnet-bk-benchmarks blocks` reads. Every linear
layer is a `Linear`, which can be watched for the statistics of the quantizer.
"""

import dataclasses
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

import scan

TAPS = 4


@dataclasses.dataclass
class Config:
    """Dimensions of a model."""

    kind: str  # mamba, gru, attention or gated
    vocab: int
    width: int
    layers: int
    hidden: int = 0  # of the FFN; 0 for none
    channels: int = 0  # of mamba and gated; 0 for twice the width
    states: int = 16  # a channel, of mamba
    heads: int = 4  # of attention
    potentials: int = 8  # of gated
    eta_floor: float = 1 / 256  # of gated

    def __post_init__(self):
        if self.kind not in MIXERS:
            raise ValueError(f"unknown kind of block {self.kind!r}; known are {', '.join(MIXERS)}")
        self.channels = self.channels or 2 * self.width


class Linear(nn.Module):
    """y = W x + b. Weights are normal with variance 1 / inputs, times `scale` squared."""

    def __init__(self, inputs, outputs, bias=True, scale=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * (scale / math.sqrt(inputs)))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.watcher = None  # called with inputs and the gradient of the outputs

    def forward(self, x):
        y = F.linear(x, self.weight, self.bias)
        if self.watcher is not None:
            seen, watcher = x.detach(), self.watcher
            y.register_hook(lambda gradient: watcher(seen, gradient))
        return y


class Embedding(nn.Module):
    """Rows of a table, to be watched like `Linear`, without inputs."""

    def __init__(self, vocab, width, deviation):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab, width) * deviation)
        self.watcher = None

    def forward(self, tokens):
        y = F.embedding(tokens, self.weight)
        if self.watcher is not None:
            watcher = self.watcher
            y.register_hook(lambda gradient: watcher(None, gradient))
        return y


class Convolution(nn.Module):
    """Depthwise, causal; the current position passes, earlier ones are mixed in."""

    def __init__(self, channels):
        super().__init__()
        taps = 0.6 * (torch.rand(TAPS, channels) - 0.5)
        taps[-1] += 0.7
        self.weight = nn.Parameter(taps)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return scan.convolve(x, self.weight, self.bias)


class FeedForward(nn.Module):
    def __init__(self, config, residual, dropout):
        super().__init__()
        self.up = Linear(config.width, config.hidden)
        self.down = Linear(config.hidden, config.width, scale=residual)
        self.dropout = dropout

    def forward(self, u):
        return self.down(F.dropout(F.relu(self.up(u)), self.dropout, self.training))


class Mamba(nn.Module):
    """Mamba (Gu and Dao, 2023) as published: convolution, selective scan, gate; no biases in the
    projections. `A_log` is [N, C] here."""

    def __init__(self, config, residual, dropout):
        super().__init__()
        c, n, rank = config.channels, config.states, max(1, config.width // 16)
        self.sizes = (rank, n, n)
        self.in_proj = Linear(config.width, 2 * c, bias=False)
        self.conv = Convolution(c)
        self.x_proj = Linear(c, rank + 2 * n, bias=False)
        self.dt_proj = Linear(rank, c)
        self.dt_proj.weight.data = (2 * torch.rand(c, rank) - 1) * rank**-0.5
        # Steps of 0.001 to 0.1, log-uniform, through the inverse of softplus.
        steps = torch.exp(math.log(1e-3) + torch.rand(c) * math.log(100))
        self.dt_proj.bias.data = steps + torch.log(-torch.expm1(-steps))
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, n + 1))[:, None].repeat(1, c))
        self.D = nn.Parameter(torch.ones(c))
        self.out_proj = Linear(c, config.width, bias=False, scale=residual)
        self.dropout = dropout

    def forward(self, u):
        a, z = self.in_proj(u).chunk(2, -1)
        a = F.silu(self.conv(a))
        dt, b, out = self.x_proj(a).split(self.sizes, -1)
        dt = F.softplus(self.dt_proj(dt))
        y = scan.selective(dt, a, b, out, -self.A_log.exp()) + self.D * a
        return self.out_proj(F.dropout(y * F.silu(z), self.dropout, self.training))


class GRU(nn.Module):
    """Gated recurrent unit (Cho et al., 2014) with the reset gate after the product, as in cuDNN;
    rows in the order reset, update, new."""

    def __init__(self, config, _residual, _dropout):
        super().__init__()
        self.input = Linear(config.width, 3 * config.width)
        self.recurrent = Linear(config.width, 3 * config.width)

    def forward(self, u):
        start = u.new_zeros(1, len(u), u.shape[2])
        if self.recurrent.watcher is None:
            parts = [self.input, self.recurrent]
            weights = [p.weight for p in parts] + [p.bias for p in parts]
            return torch.gru(u, start, weights, True, 1, 0.0, self.training, False, True)[0]
        h, states = start[0], []
        for of_input in self.input(u).unbind(1):
            (r, z, n), (hr, hz, hn) = of_input.chunk(3, -1), self.recurrent(h).chunk(3, -1)
            z, n = torch.sigmoid(z + hz), torch.tanh(n + torch.sigmoid(r + hr) * hn)
            h = n + z * (h - n)
            states.append(h)
        return torch.stack(states, 1)


class Attention(nn.Module):
    """Causal attention with rotary positions (Su et al., 2021), halves of a head rotated."""

    def __init__(self, config, residual, _dropout):
        super().__init__()
        self.heads = config.heads
        self.qkv = Linear(config.width, 3 * config.width)
        self.out_proj = Linear(config.width, config.width, scale=residual)

    def forward(self, u):
        b, t, d = u.shape
        q, k, v = self.qkv(u).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        half = d // self.heads // 2
        speeds = 10_000.0 ** (-torch.arange(half, device=u.device) / half)
        angles = torch.arange(t, device=u.device)[:, None] * speeds
        cosine, sine = angles.cos(), angles.sin()

        def rotate(x):
            x, y = x[..., :half], x[..., half:]
            return torch.cat([x * cosine - y * sine, x * sine + y * cosine], -1)

        y = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
        return self.out_proj(y.transpose(1, 2).reshape(b, t, d))


class Gated(nn.Module):
    """The gated chain of resnet-bk, for statistics and as a check of its trainer."""

    def __init__(self, config, residual, dropout):
        super().__init__()
        c, k = config.channels, config.potentials
        self.in_proj = Linear(config.width, 2 * c)
        self.conv = Convolution(c)
        self.v_proj = Linear(c, k)
        self.diagonal = nn.Parameter(torch.full((k,), -2.0))
        self.log_eta = nn.Parameter(torch.linspace(math.log(0.004), 0.0, k))
        self.output_proj = Linear(c, config.width, scale=residual)
        self.floor = config.eta_floor
        self.dropout = 0.0 if config.hidden else dropout

    def forward(self, u):
        a, z = self.in_proj(u).chunk(2, -1)
        a = F.silu(self.conv(a))
        eta = self.log_eta.exp().clamp(min=self.floor)
        density = scan.half_chain(self.v_proj(a).clamp(-3, 3), self.diagonal, eta)[1]
        gate = (eta / (eta + density)).repeat_interleave(a.shape[2] // len(eta), -1)
        read = scan.recurrence(1 - gate, gate * a) * F.silu(z)
        return self.output_proj(F.dropout(read, self.dropout, self.training))


MIXERS = {"mamba": Mamba, "gru": GRU, "attention": Attention, "gated": Gated}


class Block(nn.Module):
    def __init__(self, config, residual, dropout):
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.mixer = MIXERS[config.kind](config, residual, dropout)
        if config.hidden:
            self.ffn_norm = nn.LayerNorm(config.width)
            self.ffn = FeedForward(config, residual, dropout)

    def forward(self, h):
        h = h + self.mixer(self.norm(h))
        return h + self.ffn(self.ffn_norm(h)) if hasattr(self, "ffn") else h


class Model(nn.Module):
    """Embedding, blocks, normalization, output layer: the same frame for every kind of block, with
    the initial scales of `resnet-bk train`."""

    def __init__(self, config, dropout=0.0, deviation=0.1):
        super().__init__()
        self.config = config
        # Layers that write to the residual stream, so that its variance does not grow with depth.
        residual = (2 * config.layers) ** -0.5
        self.token_embedding = Embedding(config.vocab, config.width, deviation)
        blocks = (Block(config, residual, dropout) for _ in range(config.layers))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.width)
        self.lm_head = Linear(config.width, config.vocab)

    def forward(self, tokens):
        h = self.token_embedding(tokens)
        for block in self.blocks:
            h = block(h)
        return self.lm_head(self.norm(h))

    def layers(self):
        """Name and module of every linear layer and of the embedding."""
        return {n: m for n, m in self.named_modules() if isinstance(m, (Linear, Embedding))}

    def fold(self):
        """Moves gains and biases of normalizations into the layers that read them."""
        pairs = [(self.norm, self.lm_head)]
        for block in self.blocks:
            first = next(m for m in block.mixer.children() if isinstance(m, Linear))
            pairs.append((block.norm, first))
            if hasattr(block, "ffn"):
                pairs.append((block.ffn_norm, block.ffn.up))
        with torch.no_grad():
            for norm, linear in pairs:
                shift = linear.weight @ norm.bias
                linear.bias = nn.Parameter(shift if linear.bias is None else linear.bias + shift)
                linear.weight *= norm.weight
                norm.weight.fill_(1.0)
                norm.bias.zero_()
