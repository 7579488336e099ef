"""The language model."""

import math

import torch
from torch import Tensor, nn

from .blocks import Block
from .config import Config

# Standard deviations of embeddings and of gating networks: small beside the blocks' outputs, and
# so that routing starts out even.
EMBEDDING, GATE = 0.1, 0.02


class ResNetBK(nn.Module):
    """A ResNet-BK language model. Its `state_dict` has the names and shapes of the checkpoint."""

    def __init__(self, config: Config, dropout: float = 0.0):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab, config.width)
        positions = config.positions
        self.position_embedding = nn.Embedding(positions, config.width) if positions else None
        self.blocks = nn.ModuleList(Block(config, dropout) for _ in range(config.layers))
        self.layer_norm_final = nn.LayerNorm(config.width)
        self.lm_head = nn.Linear(config.width, config.vocab)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Linear weights are normal with variance 1/inputs; those that write to the residual stream
        are smaller, so that its variance does not grow with depth."""
        residual = 1 / math.sqrt(2 * self.config.layers)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                deviation = 1 / math.sqrt(module.in_features)
                if name.endswith((".output_proj", ".3")):
                    deviation *= residual
                if name.endswith(".gating_network"):
                    deviation = GATE
                nn.init.normal_(module.weight, std=deviation)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=EMBEDDING)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `[B, T, V]` of the successors of tokens `[B, T]`, each window from a fresh
        state."""
        h = self.token_embedding(tokens)
        if self.position_embedding is not None:
            window, positions = tokens.shape[1], self.config.positions
            if window > positions:
                raise ValueError(f"{window} tokens, but the model has {positions} positions")
            h = h + self.position_embedding.weight[:window]
        for block in self.blocks:
            h = block(h)
        return self.lm_head(self.layer_norm_final(h))
