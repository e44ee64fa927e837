"""Experts that search: the exact model of the environment is simulated ahead at every question.

As the controllers written by hand they are functions of the observation alone, deterministic and batched; but a
question costs a search, and a policy that imitates one answers in a small part of the time.
"""

from __future__ import annotations

import numpy as np

from lit_imitation.experts import scripted
from lit_imitation.experts.base import Array

LONGEST = 8
"""The most steps for which a plan of `acrobot` holds one torque, K."""
HORIZON = 150
"""The number of steps after which `acrobot` gives a plan up, H."""

_TIME_STEP = 0.2
_MAX_SPEEDS = (4 * np.pi, 9 * np.pi)


def acrobot_observation(state: Array) -> Array:
    """`state: [4, *]` (θ₁, θ₂, θ̇₁, θ̇₂) to what the environment shows of it, `[*, 6]`."""
    first, second, *speeds = state
    return np.stack([np.cos(first), np.sin(first), np.cos(second), np.sin(second), *speeds], axis=-1)


def acrobot_height(state: Array) -> Array:
    """`state: [4, *]` to the height of the tip over the pivot, `[*]`: −cos θ₁ − cos(θ₁ + θ₂); the goal is above 1."""
    height: Array = -np.cos(state[0]) - np.cos(state[0] + state[1])
    return height


def acrobot_step(state: Array, torque: Array) -> Array:
    """The state one step of Acrobot-v1 later, `[4, *]`: one Runge–Kutta step of fourth order over 0.2 s.

    `state: [4, *]` (θ₁, θ₂, θ̇₁, θ̇₂; 0 hangs), `torque: [*]` in N m at the elbow. The links have length 1, mass 1,
    centre of mass at 1/2 and moment of inertia 1, g = 9.8; with

        d₁ = 7/2 + cos θ₂,   d₂ = (5/2 + cos θ₂) / 2,   φ₂ = g/2 · sin(θ₁ + θ₂)
        φ₁ = −½ θ̇₂ (θ̇₂ + 2 θ̇₁) sin θ₂ + 3/2 · g sin θ₁ + φ₂

    the accelerations are (Sutton & Barto 1998, section 11.3)

        θ̈₂ = (u + φ₁ d₂/d₁ − ½ θ̇₁² sin θ₂ − φ₂) / (5/4 − d₂²/d₁),   θ̈₁ = −(d₂ θ̈₂ + φ₁) / d₁

    Speeds are clipped to ±4π and ±9π at the end of the step; angles are not wrapped.
    """
    k1 = _derivative(state, torque)
    k2 = _derivative(state + _TIME_STEP / 2 * k1, torque)
    k3 = _derivative(state + _TIME_STEP / 2 * k2, torque)
    k4 = _derivative(state + _TIME_STEP * k3, torque)
    following: Array = state + _TIME_STEP / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    for speed, bound in zip(following[2:], _MAX_SPEEDS, strict=True):
        np.clip(speed, -bound, bound, out=speed)
    return following


def _derivative(state: Array, torque: Array) -> Array:
    first, second, speed1, speed2 = state
    cos, sin = np.cos(second), np.sin(second)
    d1, d2 = 3.5 + cos, 1.25 + 0.5 * cos
    phi2 = 4.9 * np.sin(first + second)
    phi1 = -0.5 * sin * speed2 * (speed2 + 2 * speed1) + 14.7 * np.sin(first) + phi2
    ratio = d2 / d1
    acceleration2 = (torque + ratio * phi1 - 0.5 * sin * speed1**2 - phi2) / (1.25 - ratio * d2)
    return np.stack([speed1, speed2, -(d2 * acceleration2 + phi1) / d1, acceleration2])


def acrobot_plans(longest: int) -> Array:
    """The torques with which the plans of `acrobot` begin, `[C, 2 · longest]`; 0 is where the law π₀ acts."""
    plans = {
        (side,) * first + (-side,) * second + (0,) * (2 * longest - first - second)
        for side in (-1, 1)
        for first in range(longest + 1)
        for second in range(longest + 1)
    }
    return np.array(sorted(plans))


def shortest_acrobot_plan(observation: Array, plans: Array, horizon: int = HORIZON) -> tuple[Array, Array]:
    """What `acrobot` searches for, among any `plans: [C, L]`.

    `observation: [B, 6]` to the first torque of the best plan, `[B]`, ±1, and its steps to the goal, `[B]`,
    horizon + 1 where no plan arrives.
    """
    cos1, sin1, cos2, sin2, *speeds = observation.T.astype(np.float64)
    now = np.stack([np.arctan2(sin1, cos1), np.arctan2(sin2, cos2), *speeds])
    torque = _base(now)
    steps = np.full(len(observation), horizon + 1)
    state = np.repeat(now[..., None], len(plans), axis=-1)  # [4, those still searching, C]
    searching = np.arange(len(observation))
    for step in range(horizon):
        played = _base(state)
        if step < plans.shape[1]:
            played = np.where(plans[:, step] == 0, played, plans[:, step])
        if step == 0:
            begun = played
        state = acrobot_step(state, played)
        height = acrobot_height(state)
        # All plans are simulated at the same pace, so the first to arrive is the shortest and ends the search.
        arrived = height.max(axis=-1) > 1
        if arrived.any():
            rows = searching[arrived]
            torque[rows] = begun[rows, height[arrived].argmax(axis=-1)]
            steps[rows] = step + 1
            state, searching = state[:, ~arrived], searching[~arrived]
            if not len(searching):
                break
    return torque, steps


def _base(state: Array) -> Array:
    """The torque of π₀ in `state: [4, *]`, `[*]`."""
    return scripted.acrobot(acrobot_observation(state)) - 1


def acrobot(observation: Array) -> Array:
    """Acrobot: in the shortest of 145 simulated ways to the goal, the first step (receding-horizon shooting).

    `observation: [B, 6]` (cos θ₁, sin θ₁, cos θ₂, sin θ₂, θ̇₁, θ̇₂) to `[B]`, torque −1 (action 0) or +1 (action 2).
    With f the environment's own step (`acrobot_step`), h the height of the tip and π₀ the controller
    `scripted.acrobot`, a plan p = (a, i, j) plays

        u_t = a  for t < i,   −a  for i ≤ t < i + j,   π₀(x_t)  from then on;   x_{t+1} = f(x_t, u_t)

    and the candidates are all a ∈ {−1, 1} and 0 ≤ i, j ≤ K = 8. It arrives after T(p) = min {t ≥ 1: h(x_t) > 1} steps:

        p* = argmin_p T(p), of equals the one with the highest h(x_T);   action = u_0 of p*

    Only that step is played; the next observation is searched anew. If no plan arrives within H = 150 steps, the
    action is π₀'s. What remains of a candidate after its first step is a candidate again, i.e. the search is
    sequentially improving: in exact arithmetic it needs from no state more steps than π₀ (a rollout algorithm,
    Bertsekas, Tsitsiklis & Wu 1997, with π₀ as base heuristic; a receding horizon with u_0 played alone is
    model-predictive control, Rawlings, Mayne & Diehl 2017, chapter 2).
    """
    torque, _ = shortest_acrobot_plan(observation, _PLANS)
    action: Array = torque.astype(np.int64) + 1
    return action


_PLANS = acrobot_plans(LONGEST)
