"""`PushT`: push a T-shaped block onto its outline, with observations and score of the Diffusion Policy paper."""

from __future__ import annotations

from typing import Any, SupportsFloat

import numpy as np
from gymnasium import Env
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray

from lit_imitation.errors import ConfigError, require

SIDE = 512.0
"""Side of the square, in pixels."""
CENTER_OF_MASS = 45.0
"""The block's center of mass lies at (0, 45) in its own coordinates."""
KEYPOINTS = np.array(
    [
        [[9.3, 90.0], [-61.0, -1.2], [60.9, -1.4]],
        [[-0.3, 25.5], [-14.1, 122.8], [39.0, 32.9]],
        [[-40.0, 32.7], [-16.8, 62.9], [23.5, -1.7]],
    ]
).reshape(9, 2)
"""Points `[9, 2]` of the block in its own coordinates, fitted to the keypoints of the human demonstrations."""


def keypoints(pose: NDArray[Any]) -> NDArray[Any]:
    """The block's keypoints `[..., 9, 2]` in pixels from its poses (x, y, angle), `[..., 3]`."""
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    rotation = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    return np.asarray(KEYPOINTS @ np.swapaxes(rotation, -1, -2) + pose[..., None, :2])


def start_state(seed: int) -> NDArray[np.float64]:
    """Start (agent x, y, block x, y, angle) that the paper's code draws for this seed."""
    random = np.random.RandomState(seed % 2**32)
    agent, block = random.randint(50, 450, 2), random.randint(100, 400, 2)
    return np.array([*agent, *block, random.randn() * 2 * np.pi - np.pi])


def unplace(state: NDArray[Any]) -> NDArray[np.float64]:
    """What to pass to the simulation, so that it starts at `state: [5]`.

    It sets the position first and then turns the block about its center of mass, which moves the position again.
    """
    angle = state[4]
    turned = np.array([-np.sin(angle), np.cos(angle)]) * CENTER_OF_MASS
    return np.array([*state[:2], *(state[2:4] - [0.0, CENTER_OF_MASS] + turned), angle])


class PushTEnv(Env[Any, NDArray[np.float32]]):
    """Push-T (Florence et al. 2021, arXiv:2109.00137; Chi et al. 2023, arXiv:2303.04137), simulated by gym-pusht.

    A round agent pushes a T-shaped block onto a fixed outline. The agent moves toward the position that the action
    names. The reward is the rise of the best coverage so far, so that the return of an episode is its score in Chi et
    al.: the largest min(coverage / 0.95, 1) of a step. An episode terminates at a coverage above 0.95.

    The observation `Box(20)` holds nine keypoints of the block, then the agent's position, all in pixels. With
    `image` it is `Dict(agent: Box(2), image: Box(96, 96, 3) of uint8)`.

    `reset(seed=n)` starts where the paper's code starts for seed n, which other resets draw at random.

    Args:
        image: Whether to observe an image and the agent's position.
        render_mode: `rgb_array` or None.

    Raises:
        ConfigError: `render_mode` is unknown.
        MissingExtraError: gym-pusht is not installed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, image: bool = False, render_mode: str | None = None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode is {render_mode!r}; choose rgb_array or None")
        simulation = require("gym_pusht.envs.pusht", "pusht", "the environment lit_imitation/PushT-v0")
        self.render_mode, self.image = render_mode, image
        self.simulation = simulation.PushTEnv(obs_type="state", visualization_width=384, visualization_height=384)
        agent = Box(0.0, SIDE, (2,), np.float32)
        # Corners of the block reach beyond the walls for a moment, and so do points that follow from its pose.
        self.observation_space = (
            Dict({"agent": agent, "image": Box(0, 255, (96, 96, 3), np.uint8)})
            if image
            else Box(-SIDE, 2 * SIDE, (20,), np.float32)
        )
        self.action_space = Box(0.0, SIDE, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; `options={"state": [5]}` chooses the start (agent x, y, block x, y, angle)."""
        super().reset(seed=seed)
        if options is not None and "state" in options:
            start = unplace(np.asarray(options["state"], np.float64))
        else:
            start = start_state(int(self.np_random.integers(2**32)) if seed is None else seed)
        self.state, _ = self.simulation.reset(options={"reset_to_state": start})
        self.best = 0.0
        return self._observe(), {}

    def step(self, action: NDArray[Any]) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Move the agent toward the target for a tenth of a second."""
        target = np.clip(np.asarray(action, np.float64), 0.0, SIDE)
        self.state, score, terminated, _, info = self.simulation.step(target)
        rise = max(float(score) - self.best, 0.0)
        self.best += rise
        told = {"coverage": info["coverage"], "is_success": bool(terminated)}
        return self._observe(), rise, bool(terminated), False, told

    def _observe(self) -> Any:
        agent = self.state[:2].astype(np.float32)
        if self.image:
            return {"agent": np.clip(agent, 0.0, SIDE), "image": np.ascontiguousarray(self.simulation._render())}
        return np.concatenate([keypoints(self.state[2:]).reshape(-1).astype(np.float32), agent])

    def render(self) -> Any:
        """The scene, `[384, 384, 3]`."""
        return self.simulation.render() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the simulation."""
        self.simulation.close()
