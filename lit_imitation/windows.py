"""Windows of demonstrations: a few observations, and the chunk of actions that follows them."""

from __future__ import annotations

from copy import copy
from typing import NamedTuple

import torch
from tensordict import TensorClass
from torch import Tensor

from lit_imitation.errors import DemonstrationError
from lit_imitation.transitions import Transitions


class Windows(TensorClass):
    """Training examples `[B]` (or `[K, B]`) of a policy that plans ahead."""

    observation: Tensor
    """`[B, n, *obs]`: the last n observations, the current one at the end."""
    action: Tensor
    """`[B, H, *act]`: actions from the first of these observations on."""
    mask: Tensor
    """`[B, H]` bool: the action was demonstrated; false where it pads the chunk beyond its trajectory."""
    weight: Tensor | None = None
    """`[B]`: weight of the example in a loss; None means 1 for all."""


class WindowSize(NamedTuple):
    """Lengths of a window, in steps of the environment."""

    observations: int = 1
    """n: observations that the policy sees."""
    horizon: int = 1
    """H: actions of a chunk, the first of which belongs to the first observation."""
    actions: int = 1
    """Actions of a chunk that are executed, from the current observation's on."""


class WindowedTransitions:
    """Windows of flat transitions, gathered by index where the transitions are.

    A trajectory of T steps has windows that begin at the steps −(n − 1), …, T − H + a − 1, where a is the number of
    executed actions; steps beyond its ends repeat its first or last one. So at most n − 1 steps before its beginning
    and a − 1 after its end are padding, as in the code of Chi et al. (2023, arXiv:2303.04137). A trajectory with fewer
    than H − a − n + 2 steps has no window.

    Args:
        data: `[N]`: whole trajectories.
        size: Lengths of the windows.

    Raises:
        DemonstrationError: No trajectory is long enough for a window.
    """

    def __init__(self, data: Transitions, size: WindowSize) -> None:
        self.data, self.size = data, size
        lengths = data.episode_lengths()
        starts = lengths.cumsum(0) - lengths
        counts = (lengths - size.horizon + size.actions + size.observations - 1).clamp(min=0)
        self.left_out = int((counts == 0).sum())
        """Number of trajectories without a window."""
        if len(lengths) and not int(counts.sum()):
            raise DemonstrationError(
                f"no trajectory is long enough for a window of horizon {size.horizon} with n_obs_steps "
                f"{size.observations} and n_action_steps {size.actions}: the longest has {int(lengths.max())} steps; "
                "set a smaller horizon"
            )
        episode = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), counts)
        number = torch.arange(len(episode), device=lengths.device) - (counts.cumsum(0) - counts)[episode]
        self.first = starts[episode] + number - (size.observations - 1)
        """`[windows]`: row of the first step, before the trajectory's beginning where the window is padded."""
        self.low, self.high = starts[episode], starts[episode] + lengths[episode] - 1
        """`[windows]`: first and last row of the window's trajectory."""

    def share(self, rank: int, world: int) -> WindowedTransitions:
        """Every `world`-th window from number `rank` on."""
        part = copy(self)
        part.first, part.low, part.high = (one[rank::world] for one in (self.first, self.low, self.high))
        return part

    def chunks(self) -> Tensor:
        """Actions of all windows, `[windows, H, *act]`, without the observations, which may be large."""
        steps = self.first[:, None] + torch.arange(self.size.horizon, device=self.first.device)
        return self.data.action[steps.clamp(self.low[:, None], self.high[:, None])]

    def current(self) -> Tensor:
        """`[windows]`: row of the current observation, the last that the policy sees."""
        return self.first + self.size.observations - 1

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.first)

    @property
    def device(self) -> torch.device | None:
        """Device of the transitions."""
        return self.data.device if self.data.device is not None else self.data.action.device

    def __getitem__(self, index: Tensor | slice) -> Windows:
        """Windows at `index: [B]` or `[K, B]`."""
        first, low, high = (one[index][..., None] for one in (self.first, self.low, self.high))
        steps = first + torch.arange(self.size.horizon, device=first.device)
        seen = first + torch.arange(self.size.observations, device=first.device)
        inside = steps.clamp(low, high)
        current = first[..., 0] + self.size.observations - 1
        return Windows(
            observation=self.data.observation[seen.clamp(low, high)],
            action=self.data.action[inside],
            mask=inside == steps,
            weight=None if self.data.weight is None else self.data.weight[current],
            batch_size=current.shape,
        )
