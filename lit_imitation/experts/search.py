"""Experts that search: the exact model of the environment is simulated ahead at every question.

Like the controllers written by hand they are functions of the observation alone, deterministic and batched; but a
question costs a search, and a policy that imitates one answers in a small part of the time.
"""

from __future__ import annotations

import numpy as np

from lit_imitation.experts import scripted
from lit_imitation.experts.base import Array

LONGEST = 40
"""The most steps for which a plan of `mountain_car` pushes to one side, K."""
HORIZON = 150
"""The number of steps after which `mountain_car` gives a plan up, H."""


def mountain_car_step(state: Array, push: Array) -> Array:
    """The state one step of MountainCar-v0 later, `[2, *]`.

    `state: [2, *]` (position x, speed v), `push: [*]` u ∈ {−1, 0, 1}:

        v' = clip(v + 0.001 u − 0.0025 cos 3x, ±0.07),   x' = clip(x + v', −1.2, 0.6),   v' = max(v', 0) at x' = −1.2
    """
    position, speed = state
    speed = np.clip(speed + 0.001 * push - 0.0025 * np.cos(3 * position), -0.07, 0.07)
    position = np.clip(position + speed, -1.2, 0.6)
    return np.stack([position, np.where((position == -1.2) & (speed < 0), 0.0, speed)])


def mountain_car_plans(longest: int) -> Array:
    """How the plans of `mountain_car` begin, `[C, longest]`: pushes of ±1, and 0 from where the law π₀ acts."""
    held = np.arange(longest) < np.arange(longest + 1)[:, None]
    return np.concatenate([held * -1, held[1:] * 1])


def shortest_mountain_car_plan(observation: Array, plans: Array, horizon: int = HORIZON) -> tuple[Array, Array]:
    """What `mountain_car` searches for, among any `plans: [C, L]`.

    `observation: [B, 2]` to the first push of the best plan, `[B]`, and its time to the goal in steps, `[B]`, infinite
    where no plan arrives (the push is then that of the first plan).
    """
    state = np.repeat(observation.T.astype(np.float64)[..., None], len(plans), axis=-1)  # [2, B, C]
    time = np.full(state.shape[1:], np.inf)
    for step in range(horizon):
        push = _base(state)
        if step < plans.shape[1]:
            push = np.where(plans[:, step] == 0, push, plans[:, step])
        if step == 0:
            begun = push
        before, state = state[0], mountain_car_step(state, push)
        arrived = np.isinf(time) & (state[0] >= 0.5)
        time[arrived] = step + (0.5 - before[arrived]) / (state[0] - before)[arrived]
        # All plans run at the same pace: none that arrives in a later step is faster.
        if np.isfinite(time).any(axis=-1).all():
            break
    best = time.argmin(axis=-1)[:, None]
    return np.take_along_axis(begun, best, -1)[:, 0], np.take_along_axis(time, best, -1)[:, 0]


def _base(state: Array) -> Array:
    """The push of the controller in `state: [2, *]`, `[*]`."""
    return scripted.mountain_car(state.reshape(2, -1).T).reshape(state.shape[1:]) - 1


def mountain_car(observation: Array) -> Array:
    """MountainCar: of 81 simulated plans the fastest one's first push, each time anew (receding-horizon shooting).

    `observation: [B, 2]` (position x, speed v) to `[B]`, 0 (push left) or 2 (right). With f the environment's own step
    (`mountain_car_step`) and π₀ the controller `scripted.mountain_car`, a plan p = (a, k) plays

        u_t = a  for t < k,   π₀(x_t, v_t)  from then on;   (x, v)_{t+1} = f((x, v)_t, u_t)

    The candidates P are π₀ alone (k = 0), and a ∈ {−1, 1} for 1 ≤ k ≤ K = 40 steps. A plan's time T(p) is that at which
    x passes 0.5, interpolated within the step, so that plans of as many steps are not equals:

        p* = argmin_{p ∈ P} T(p);   action = u_0 of p*

    Only that push is played, and the next observation is searched anew. What remains of a candidate after its first
    step is a candidate again, so that acting like this is nowhere slower than π₀ (a rollout algorithm whose base
    heuristic π₀ is, Bertsekas, Tsitsiklis & Wu 1997; to plan again after each step is model-predictive control,
    Rawlings, Mayne & Diehl 2017, chapter 2). Mean return −98.6 where π₀ has −98.7, over the same 100 episodes.
    """
    push, _ = shortest_mountain_car_plan(observation, _PLANS)
    return push.astype(np.int64) + 1


_PLANS = mountain_car_plans(LONGEST)
