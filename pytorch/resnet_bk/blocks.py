"""The two kinds of block. Modules have the names of the checkpoint's tensors."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import TAPS, Config
from .scan import Complex, full_chain, half_chain, memory

# Potentials and features are clipped to these.
POTENTIAL_BOUND, FEATURE_BOUND = 3.0, 10.0


class Chain(nn.Module):
    """K tridiagonal chains, and their resolvent from potentials."""

    def __init__(self, config: Config, inputs: int, etas: tuple[float, float]):
        super().__init__()
        self.config = config
        self.v_proj = nn.Linear(inputs, config.potentials)
        # The published diagonal; η spread from long memory to little more than a position.
        self.diagonal = nn.Parameter(torch.full((config.potentials,), -2.0))
        low, high = (math.log(max(eta, config.eta_floor)) for eta in etas)
        spread = torch.linspace(low, high, config.potentials)
        self.log_eta = nn.Parameter(spread if config.potentials > 1 else torch.tensor([high]))

    def eta(self) -> Tensor:
        """η `[K]`."""
        return self.log_eta.exp().clamp(min=self.config.eta_floor)

    def resolve(self, u: Tensor) -> Complex:
        """G `[B, T, K]` of inputs `[B, T, inputs]`, in FP32 whatever the inputs' type."""
        with torch.autocast(u.device.type, enabled=False):
            v = self.v_proj(u.to(self.v_proj.weight.dtype))
            re = self.diagonal + v.clamp(-POTENTIAL_BOUND, POTENTIAL_BOUND)
            im = -self.eta().expand_as(re)
            resolve = half_chain if self.config.chain == "half" else full_chain
            return resolve((re, im), self.config.off_diagonal)


class Experts(nn.Module):
    """A mixture of experts. All are computed, and those that are not chosen weigh nothing: shapes
    do not depend on the data."""

    def __init__(self, config: Config, dropout: float):
        super().__init__()
        self.top_k = config.top_k
        self.gating_network = nn.Linear(config.width, config.experts) if config.gate else None

        def expert() -> nn.Sequential:
            up = nn.Linear(config.width, config.hidden)
            down = nn.Linear(config.hidden, config.width)
            return nn.Sequential(up, nn.ReLU(), nn.Dropout(dropout), down)

        self.experts = nn.ModuleList(expert() for _ in range(config.experts))

    def forward(self, u: Tensor) -> Tensor:
        if self.gating_network is None:
            return self.experts[0](u)
        with torch.autocast(u.device.type, enabled=False):
            logits = self.gating_network(u.to(self.gating_network.weight.dtype))
        # Of equal outputs the one of the lower index counts as the larger.
        order = logits.sort(dim=-1, descending=True, stable=True).indices
        chosen = torch.zeros_like(logits).scatter(-1, order[..., : self.top_k], 1.0) > 0
        weights = logits.masked_fill(~chosen, -torch.inf).softmax(-1)
        outputs = torch.stack([expert(u) for expert in self.experts], -1)
        return (outputs * weights.unsqueeze(-2).to(outputs.dtype)).sum(-1)


class Resolvent(Chain):
    """The published block: elements of the resolvent are features."""

    def __init__(self, config: Config, dropout: float):
        super().__init__(config, config.width, (0.05, 1.0))
        self.moe_ffn = Experts(config, dropout)
        self.output_proj = nn.Linear(2 * config.potentials, config.width)
        self.bk_scale = nn.Parameter(torch.ones(()))

    def forward(self, u: Tensor) -> Tensor:
        features = torch.cat(self.resolve(u), -1).clamp(-FEATURE_BOUND, FEATURE_BOUND)
        return self.bk_scale * self.output_proj(features) + self.moe_ffn(u)


class Convolution(nn.Module):
    """Causal, each channel with its own taps, the oldest position first."""

    def __init__(self, channels: int):
        super().__init__()
        # The current position passes through, earlier ones are mixed in.
        taps = 0.6 * (torch.rand(TAPS, channels) - 0.5)
        taps[-1] += 0.7
        self.weight = nn.Parameter(taps)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        window = x.shape[1]
        padded = F.pad(x, (0, 0, TAPS - 1, 0))
        return self.bias + sum(self.weight[j] * padded[:, j : j + window] for j in range(TAPS))


class GatedChain(Chain):
    """The chain's local density of states, Im G, decides how fast a memory forgets."""

    def __init__(self, config: Config, dropout: float):
        channels = config.block.channels
        super().__init__(config, channels, (0.004, 1.0))
        self.in_proj = nn.Linear(config.width, 2 * channels)
        self.conv = Convolution(channels)
        self.dropout = nn.Dropout(dropout)
        self.output_proj = nn.Linear(channels, config.width)
        if config.hidden:
            self.moe_ffn = Experts(config, dropout)

    def forward(self, u: Tensor) -> Tensor:
        a, z = self.in_proj(u).chunk(2, -1)
        a = F.silu(self.conv(a))
        _, im = self.resolve(a)
        eta = self.eta()
        gates = eta / (eta + im)
        # Potentials share their gate with C/K channels.
        gates = gates.repeat_interleave(a.shape[-1] // gates.shape[-1], -1)
        s = memory(1 - gates, gates * a.to(gates.dtype))
        return self.output_proj(self.dropout(s.to(z.dtype) * F.silu(z)))


class Block(nn.Module):
    """A block of the residual stream `[B, T, d]`."""

    def __init__(self, config: Config, dropout: float):
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.width)
        kind = Resolvent if config.block is None else GatedChain
        self.bk_layer = kind(config, dropout)
        own_norm = config.block is not None and config.hidden
        self.ffn_norm = nn.LayerNorm(config.width) if own_norm else None

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.bk_layer(self.layer_norm(h))
        return h if self.ffn_norm is None else h + self.bk_layer.moe_ffn(self.ffn_norm(h))
