"""Callback that records videos of the policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning_utilities.core.rank_zero import rank_zero_warn
from PIL import Image

from lit_imitation.envs import make_single
from lit_imitation.errors import ConfigError
from lit_imitation.methods.method import Method
from lit_imitation.rollout import as_actor
from lit_imitation.utils.arguments import TypeChecked
from lit_imitation.utils.seeding import RandomStream, derive_seed


class VideoLogger(TypeChecked, Callback):
    """Records one episode after a validation as `DIR/videos/step_N.gif`, and logs it to W&B if that is a logger.

    If the environment cannot render, a warning is shown, and training continues without videos.

    Args:
        every_n_validations: Number of validations per video.
        max_steps: Largest number of frames.
        fps: Frames per second.

    Raises:
        ConfigError: An argument is below 1.
    """

    def __init__(self, every_n_validations: int = 5, max_steps: int = 500, fps: int = 30) -> None:
        for name, value in (("every_n_validations", every_n_validations), ("max_steps", max_steps), ("fps", fps)):
            if value < 1:
                raise ConfigError(f"VideoLogger: {name} is {value}; it must be at least 1")
        self.every_n_validations, self.max_steps, self.fps = every_n_validations, max_steps, fps
        self._validations = 0
        self._can_record = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there is an environment."""
        if isinstance(pl_module, Method) and not pl_module.datamodule.env_id:
            raise ConfigError(
                "VideoLogger records episodes, but there is no environment: leave it out, or set data.env_id"
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record an episode on the first process, if one is due."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._validations += 1
        due = self._can_record and self._validations % self.every_n_validations == 0
        if not due or trainer.sanity_checking or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Method)
        path = Path(trainer.default_root_dir) / "videos" / f"step_{trainer.global_step:08d}.gif"
        try:
            self.record(pl_module, path)
        except Exception as error:  # environments may raise anything
            self._can_record = False
            env_id = pl_module.datamodule.env_id
            rank_zero_warn(f"VideoLogger: no more videos of {env_id} in this run: {type(error).__name__}: {error}")
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_video("val/video", [str(path)], format=["gif"])

    def record(self, module: Method, path: Path) -> None:
        """Play one episode and save it as a GIF at `path`."""
        data = module.datamodule
        seed = derive_seed(data.seed, "video")
        env = make_single(data.env_id, **{**data.env_kwargs, "render_mode": "rgb_array"})
        actor = as_actor(module.actor(), env.observation_space)
        frames = []
        with RandomStream(seed):
            observation, _ = env.reset(seed=seed)
            actor.reset(np.ones(1, dtype=np.bool_))
            for _ in range(self.max_steps):
                picture: Any = env.render()
                if not isinstance(picture, np.ndarray):
                    raise ConfigError(
                        f"render() returned a {type(picture).__name__}, not an array, for render_mode rgb_array"
                    )
                frames.append(Image.fromarray(picture))
                action: Any = actor.act(np.asarray(observation)[None])[0]
                observation, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    break
        env.close()
        path.parent.mkdir(parents=True, exist_ok=True)
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=1000 // self.fps, loop=0)

    def state_dict(self) -> dict[str, Any]:
        """Number of validations so far."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of validations."""
        self._validations = state_dict["validations"]
