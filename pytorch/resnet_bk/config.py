"""Dimensions of a model, as `docs/checkpoint.md` names them."""

import dataclasses
import json
from typing import Any

# Taps of the convolution of a gated chain.
TAPS = 4


@dataclasses.dataclass(frozen=True)
class Gated:
    """A gated chain with a memory of so many channels, a multiple of the potentials."""

    channels: int


@dataclasses.dataclass(frozen=True)
class Config:
    """Dimensions. The defaults are those of a causal model without experts."""

    vocab: int
    width: int
    layers: int
    experts: int = 1
    top_k: int = 1
    hidden: int = 0
    potentials: int = 8
    positions: int | None = None
    chain: str = "half"
    eta_floor: float = 1 / 256
    off_diagonal: float = 1.0
    block: Gated | None = None
    """None is the published block."""

    def __post_init__(self) -> None:
        def need(condition: bool, text: str) -> None:
            if not condition:
                raise ValueError(text)

        sizes = {"vocab": 2**32 - 1, "width": 4_096, "layers": 64, "experts": 64, "potentials": 2_048}
        for name, most in sizes.items():
            value = getattr(self, name)
            need(1 <= value <= most, f"{name} is {value}; it must be between 1 and {most}")
        need(1 <= self.top_k <= self.experts, f"top_k is {self.top_k} of {self.experts} experts")
        need(self.chain in ("half", "full"), f"chain is {self.chain}; it must be half or full")
        need(self.eta_floor > 0, f"eta_floor is {self.eta_floor}; it must be positive")
        need(self.off_diagonal >= 0, f"off_diagonal is {self.off_diagonal}; it is negative")
        if self.block is None:
            need(self.hidden >= 1, "a published block has experts: hidden must be at least 1")
            return
        channels = self.block.channels
        need(
            channels >= 1 and channels % self.potentials == 0,
            f"channels is {channels}; it must be a multiple of the {self.potentials} potentials",
        )
        need(self.hidden >= 1 or self.experts == 1, f"{self.experts} experts without hidden units")
        need(self.chain == "half", "a gated chain is causal: chain must be half")

    @property
    def gate(self) -> bool:
        """Whether blocks have a gating network."""
        return self.block is None or self.experts > 1

    def to_json(self) -> str:
        """The metadata `resnet_bk_config`."""
        values = dataclasses.asdict(self)
        block = values.pop("block")
        if block is not None:
            values["block"] = {"gated": block}
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """The inverse of `to_json`."""
        values: dict[str, Any] = json.loads(text)
        block = values.pop("block", "resolvent")
        if block == "resolvent":
            return cls(**values)
        if not isinstance(block, dict) or list(block) != ["gated"]:
            raise ValueError(f"block {block} is unknown here: resolvent and gated are known")
        return cls(**values, block=Gated(**block["gated"]))
