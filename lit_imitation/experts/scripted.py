"""Hand-written controllers, one for each task.

Each is a batched function of the observation alone, so a policy can clone it and it can label any state. Its docstring
gives the control law; the constants were found by a search over simulated episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from lit_imitation.envs import corridor as corridor_env
from lit_imitation.envs import lane_keeping as lane
from lit_imitation.envs import point_mass_maze as maze
from lit_imitation.experts.base import Array


def cart_pole(observation: Array) -> Array:
    """CartPole: push to the side that a linear function of the state gives.

    `observation: [B, 4]` (position x, ẋ, angle θ, θ̇) to `[B]`, 1 (right) where

        0.1 x + 0.25 ẋ + θ + 0.25 θ̇ > 0
    """
    right: Array = observation @ np.array([0.1, 0.25, 1.0, 0.25]) > 0
    return right.astype(np.int64)


def pendulum(observation: Array) -> Array:
    """Pendulum: pump energy, then hold upright; continuous in the state.

    `observation: [B, 3]` (cos θ, sin θ, ω; θ = 0 is up) to the torque `[B, 1]`, where E = ω²/2 + 15 (cos θ − 1) is
    the energy divided by the inertia, 0 at rest upright. The weight c = clip((cos θ − 0.1) / 0.9, 0, 1)² increases the
    feedback as the pendulum rises:

        u = clip(0.2 ω (5.9 − E) + 5.3 sin θ − c (35 sin θ + 7.8 ω), ±2)
    """
    cos, sin, speed = observation.T
    energy = speed**2 / 2 + 15 * (cos - 1)
    upright = np.clip((cos - 0.1) / 0.9, 0, 1) ** 2
    torque: Array = 0.2 * speed * (5.9 - energy) + 5.3 * sin - upright * (35 * sin + 7.8 * speed)
    return np.clip(torque, -2, 2).astype(np.float32)[:, None]


def mountain_car(observation: Array) -> Array:
    """MountainCar: full throttle to the side that a curve in the plane of position and speed gives.

    `observation: [B, 2]` (position x, speed v) to `[B]`, 2 (right) where, with z = x + 0.5,

        v > −0.00168 + 0.0657 z + 0.253 z² − 0.12 z³ − z⁴

    and 0 (left) elsewhere: in the direction of the speed near the bottom, but turning early on the slopes.
    """
    position, speed = observation.T
    curve = np.polyval([-1.0, -0.12, 0.253, 0.0657, -0.00168], position + 0.5)
    return np.where(speed > curve, 2, 0).astype(np.int64)


def mountain_car_continuous(observation: Array) -> Array:
    """MountainCarContinuous: push in the direction of the speed and in proportion to it.

    `observation: [B, 2]` (position x, speed v) to the force `[B, 1]`:

        u = clip(5 v + 0.25 v / √(v² + 0.005²), ±1)

    A step gains energy in proportion to u v and costs u², so u ∝ v climbs at the lowest cost. The second term leaves
    the bottom sooner.
    """
    speed = observation[:, 1:]
    return np.clip(5 * speed + 0.25 * speed / np.sqrt(speed**2 + 0.005**2), -1, 1).astype(np.float32)


def acrobot(observation: Array) -> Array:
    """Acrobot: torque in the direction of the elbow's speed, which adds energy, corrected by shoulder speed and angles.

    `observation: [B, 6]` (cos θ₁, sin θ₁, cos θ₂, sin θ₂, θ̇₁, θ̇₂) to `[B]`, torque +1 (action 2) where

        θ̇₂ − 2.5 θ̇₁ − 2.9 sin θ₁ − 2.4 sin θ₂ > 0

    and −1 (action 0) elsewhere.
    """
    return np.where(observation @ np.array([0, -2.9, 0, -2.4, -2.5, 1]) > 0, 2, 0).astype(np.int64)


def _lander_errors(
    observation: Array,
    *,
    lean: tuple[float, float, float],
    turn: tuple[float, float],
    slope: float,
    climb: tuple[float, float],
) -> tuple[Array, Array]:
    """Errors of the lander's rotation and upward thrust, `[B]` each, which both landers correct.

    `observation: [B, 8]` is (x, y, ẋ, ẏ, θ, θ̇, left leg, right leg). The lander leans against its drift and descends
    along the funnel y = slope · |x|. Once a leg is on the ground, it only brakes its descent:

        θ* = clip(lean₀ x + lean₁ ẋ, ±lean₂)
        rotation = turn₀ (θ* − θ) − turn₁ θ̇            (on the ground: 0)
        thrust = climb₀ (slope |x| − y) − climb₁ ẏ      (on the ground: −climb₁ ẏ)
    """
    x, y, speed_x, speed_y, angle, spin, left, right = observation.T
    flying = left + right == 0
    wanted_angle = np.clip(lean[0] * x + lean[1] * speed_x, -lean[2], lean[2])
    rotation = flying * (turn[0] * (wanted_angle - angle) - turn[1] * spin)
    thrust = flying * climb[0] * (slope * np.abs(x) - y) - climb[1] * speed_y
    return rotation, thrust


def lunar_lander(observation: Array) -> Array:
    """LunarLander: fire the engine with the larger error, if that is above 0.05.

    `observation: [B, 8]` to `[B]`. With `rotation` r and `thrust` f of `_lander_errors`: the main engine (2) where
    f > max(|r|, 0.05), else the right one (3) where r < −0.05, the left one (1) where r > 0.05, none (0) otherwise.
    """
    rotation, thrust = _lander_errors(
        observation, lean=(0.45, 0.9, 0.38), turn=(0.563, 1.24), slope=0.497, climb=(0.508, 0.636)
    )
    main = thrust > np.maximum(np.abs(rotation), 0.05)
    action: Array = np.where(main, 2, np.where(rotation < -0.05, 3, rotation > 0.05)).astype(np.int64)
    return action


def lunar_lander_continuous(observation: Array) -> Array:
    """LunarLanderContinuous: both engines in proportion to the errors.

    `observation: [B, 8]` to `[B, 2]` (main, lateral). With `rotation` r and `thrust` f of `_lander_errors`:

        main = clip(20 f − 1, ±1),   lateral = clip(−20 r, ±1)
    """
    rotation, thrust = _lander_errors(
        observation, lean=(0.68, 1.29, 0.96), turn=(0.507, 0.633), slope=0.13, climb=(0.296, 0.345)
    )
    action: Array = np.stack([20 * thrust - 1, -20 * rotation], axis=-1)
    return np.clip(action, -1, 1).astype(np.float32)


def corridor(observation: Array) -> Array:
    """Corridor: the right action in each situation, by the environment's own table; return (4) in state `off`.

    `observation: [B]` to `[B]`.
    """
    return corridor_env.expert_action(observation)


def lane_keeping(observation: Array) -> Array:
    """LaneKeeping: steer toward a heading that leads back to the center line.

    `observation: [B, 4]` (x, y, cos ψ, sin ψ) to the steering `[B, 1]`, with c the center line and the angle taken in
    (−π, π]:

        a = clip(4 ∠(arctan c′(x + 0.05) − arctan(3 (y − c(x))) − ψ), ±1)

    The lane's direction is taken at the end of the step, which compensates most of the feedback's lag.
    """
    x, _, cos, sin = observation.T.astype(np.float64)
    wanted = lane.center_heading(x + lane.SPEED) - np.arctan(3 * lane.lateral_offset(observation))
    difference = np.arctan2(np.sin(wanted) * cos - np.cos(wanted) * sin, np.cos(wanted) * cos + np.sin(wanted) * sin)
    action: Array = np.clip(4 * difference, -1, 1).astype(np.float32)[:, None]
    return action


def point_mass(observation: Array) -> Array:
    """PointMass, the maze without a barrier: move to the goal, at full speed along each axis.

    `observation: [B, 2]`, the position p, to the velocity `[B, 2]`: a = clip((goal − p) / 0.02, ±1).
    """
    return np.clip((maze.GOAL - observation) / maze.SPEED, -1, 1).astype(np.float32)


CONTROLLERS: Mapping[str, Callable[[Array], Array]] = {
    "Acrobot-v1": acrobot,
    "CartPole-v1": cart_pole,
    "LunarLander-v3": lunar_lander,
    "LunarLanderContinuous-v3": lunar_lander_continuous,
    "MountainCar-v0": mountain_car,
    "MountainCarContinuous-v0": mountain_car_continuous,
    "Pendulum-v1": pendulum,
    "lit_imitation/Corridor-v0": corridor,
    "lit_imitation/LaneKeeping-v0": lane_keeping,
    "lit_imitation/PointMass-v0": point_mass,
}
"""The `scripted` expert of each environment."""
