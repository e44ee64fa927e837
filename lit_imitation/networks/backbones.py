"""Choice of the network that maps a chunk of actions, a time and a condition to a chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from lit_imitation.errors import ConfigError
from lit_imitation.networks.film import Backbone, FilmMLP
from lit_imitation.networks.mlp import Activation
from lit_imitation.networks.transformer import CausalTransformer
from lit_imitation.networks.unet import ConditionalUNet

BackboneKind = Literal["mlp", "unet", "transformer"]
"""Kind of a backbone."""
BACKBONES: dict[str, type[FilmMLP | ConditionalUNet | CausalTransformer]] = {
    "mlp": FilmMLP,
    "unet": ConditionalUNet,
    "transformer": CausalTransformer,
}


def make_backbone(
    kind: BackboneKind,
    act_dim: int,
    horizon: int,
    condition_features: int,
    *,
    hidden_sizes: Sequence[int],
    activation: Activation,
    dropout: float = 0.0,
    out_features: int | None = None,
    timed: bool = True,
) -> Backbone:
    """Build a backbone.

    Args:
        kind: `mlp` for residual blocks with FiLM, `unet` for convolutions over time, `transformer` for causal
            attention.
        act_dim: Size A of an action.
        horizon: Number H of actions in a chunk.
        condition_features: Size C of the condition.
        hidden_sizes: Width of each residual block (`mlp`), channels of each resolution (`unet`), or width of each layer
            (`transformer`, all equal).
        activation: Activation.
        dropout: Probability of zeroing a hidden unit during training.
        out_features: Size A' of an output; A by default.
        timed: Whether the network depends on a time.

    Raises:
        ConfigError: `hidden_sizes` is empty or does not fit the kind.
    """
    if not hidden_sizes:
        raise ConfigError(f"hidden_sizes is empty; the backbone '{kind}' needs at least one size")
    return BACKBONES[kind](
        act_dim,
        horizon,
        condition_features,
        hidden_sizes=hidden_sizes,
        activation=activation,
        dropout=dropout,
        out_features=act_dim if out_features is None else out_features,
        timed=timed,
    )
