"""An environment and an expert that fail in a chosen way once they are armed."""

from __future__ import annotations

import os
import signal
from typing import Any

import gymnasium
import numpy as np

LENGTH, AT = 9, 5
"""Length of an episode, and the step of the fault."""
fault = ""
"""Name of the armed fault; empty for none."""


def arm(name: str) -> None:
    global fault
    fault = name


def local_error() -> Exception:
    class Local(Exception):
        """Cannot be pickled."""

    return Local("the motor is gone")


class FaultyEnv(gymnasium.Env):
    """Environment that counts its steps; of two copies with consecutive seeds, the one with the odd seed fails."""

    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.odd, self.t = False, 0
        if fault == "init-raises":
            raise RuntimeError("no display")
        if fault == "init-exits":
            raise SystemExit(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.odd = seed % 2 == 1
        self.t = 0
        if self.odd and fault == "reset-raises":
            raise RuntimeError("no map")
        if self.odd and fault == "reset-exits":
            raise SystemExit(0)
        if self.odd and fault == "reset-nan":
            return np.full(3, np.nan, np.float32), {}
        return self._seen(), {}

    def _seen(self) -> np.ndarray[Any, Any]:
        return np.array([self.t, self.odd, 1.0], np.float32)

    def step(self, action: Any) -> Any:
        self.t += 1
        observation, reward, done = self._seen(), 1.0, self.t == LENGTH
        result: tuple[Any, ...] = (observation, reward, False, done, {})
        if not self.odd or self.t != AT + 1 or not fault:
            return result
        if fault == "raises":
            raise ValueError("the wheel came off")
        if fault == "raises-unpicklable":
            raise local_error()
        if fault == "asserts":
            raise AssertionError
        if fault == "exits":
            raise SystemExit(0)
        if fault == "stops-iteration":
            raise StopIteration
        if fault == "interrupts":
            raise KeyboardInterrupt
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "gone":
            os._exit(0)
        return {
            "reward-nan": (observation, float("nan"), False, done, {}),
            "reward-inf": (observation, float("inf"), False, done, {}),
            "reward-none": (observation, None, False, done, {}),
            "reward-text": (observation, "much", False, done, {}),
            "observation-nan": (np.full(3, np.nan, np.float32), reward, False, done, {}),
            "observation-inf": (np.full(3, -np.inf, np.float32), reward, False, done, {}),
            "observation-shape": (np.zeros(4, np.float32), reward, False, done, {}),
            "observation-text": (np.array(["a", "b", "c"]), reward, False, done, {}),
            "observation-none": (None, reward, False, done, {}),
            "four-values": (observation, reward, done, {}),
        }.get(fault, result)


def expert(observation: np.ndarray[Any, Any]) -> Any:
    action = np.zeros(len(observation), np.int64)
    if not fault.startswith("expert") or observation[:, 0].max() != AT:
        return action
    if fault == "expert-raises":
        raise RuntimeError("the pilot has left")
    if fault == "expert-exits":
        raise SystemExit(0)
    if fault == "expert-stops-iteration":
        raise StopIteration
    return {
        "expert-nan": np.full(len(observation), np.nan),
        "expert-outside": action + 7,
        "expert-shape": np.zeros((len(observation), 2), np.int64),
        "expert-none": None,
        "expert-text": np.full(len(observation), "left"),
    }[fault]


gymnasium.register("Faulty-v0", FaultyEnv)
