"""Seeded vector environments by id, on the fastest available backend.

The package registers its own environments under `lit_imitation/`. For `experiments.studies`: `Corridor-v0`,
`Fork-v0`, `LaneKeeping-v0`, `PointMass-v0`, and two pairs with different dynamics, `PointMassMaze-v0` and
`PointMassMazeMirrored-v0`, `WeakAnt-v0` and `CrippledAnt-v0`. From `lit_imitation.tabular`: `GridWorld-v0`,
`ObjectWorld-v0`, `BinaryWorld-v0`, and `Tabular-v0`, whose argument `world` is any `TabularMDP`.
"""

from gymnasium import register

from lit_imitation.envs.make import Backend, episode_limit, make, make_single, shares_generator

__all__ = [
    "Backend",
    "episode_limit",
    "make",
    "make_single",
    "shares_generator",
]

# Registered by name, so that an environment is imported only when it is made.
for _module, _name, _id, _arguments in (
    ("corridor", "Corridor", "Corridor", {}),
    ("fork", "Fork", "Fork", {}),
    ("lane_keeping", "LaneKeeping", "LaneKeeping", {}),
    ("point_mass_maze", "PointMassMaze", "PointMassMaze", {"barrier": "right"}),
    ("point_mass_maze", "PointMassMaze", "PointMassMazeMirrored", {"barrier": "left"}),
    ("point_mass_maze", "PointMassMaze", "PointMass", {"barrier": "none"}),
):
    _entry_point = f"lit_imitation.envs.{_module}:{_name}"
    register(
        f"lit_imitation/{_id}-v0",
        f"{_entry_point}Env",
        vector_entry_point=f"{_entry_point}VectorEnv",
        kwargs=dict(_arguments),
    )
for _id, _crippled in (("WeakAnt", False), ("CrippledAnt", True)):
    register(
        f"lit_imitation/{_id}-v0",
        "lit_imitation.envs.ant:AntEnv",
        max_episode_steps=500,
        kwargs={"crippled": _crippled},
    )
register("lit_imitation/PushT-v0", "lit_imitation.envs.push_t:PushTEnv", max_episode_steps=300)
_entry_point = "lit_imitation.tabular.env:Tabular"
for _id in ("GridWorld", "ObjectWorld", "BinaryWorld", "Tabular"):
    register(
        f"lit_imitation/{_id}-v0",
        f"{_entry_point}Env",
        vector_entry_point=f"{_entry_point}VectorEnv",
        kwargs={} if _id == "Tabular" else {"world": _id},
    )
