"""The ant of the transfer study, and its crippled twin, made from the model that comes with Gymnasium."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lit_imitation.errors import require
from lit_imitation.utils.cache import cache_dir
from lit_imitation.utils.files import atomic_write

require("mujoco", "mujoco", "the environments lit_imitation/WeakAnt-v0 and lit_imitation/CrippledAnt-v0")

from gymnasium.envs.mujoco import ant_v5, mujoco_env  # noqa: E402

GEAR, CRIPPLED_GEAR = 30, 1
BACK_LEGS = ("aux_3", "aux_4")
"""Bodies at the hips of the legs that Gymnasium's model calls `back_leg` and `right_back_leg`."""
BACK_JOINTS = ("hip_3", "ankle_3", "hip_4", "ankle_4")


def model_xml(crippled: bool) -> str:
    """Gymnasium's `ant.xml` with gears of 30; crippled, with back legs half as long and gears of 1 on their motors.

    A leg has two segments: from hip to ankle, 0.2 along x and y, and from ankle to foot, 0.4. The short stump from the
    torso's middle to the hip stays.
    """
    tree = ElementTree.parse(Path(mujoco_env.__file__).parent / "assets" / "ant.xml")
    for motor in tree.iterfind("./actuator/motor"):
        weak = crippled and motor.get("joint") in BACK_JOINTS
        motor.set("gear", str(CRIPPLED_GEAR if weak else GEAR))
    for hip in tree.iterfind(".//body"):
        if crippled and hip.get("name") in BACK_LEGS:
            for part, name in ((hip, "geom"), (hip, "body"), (hip, "body/geom")):
                segment = part.find(name)
                assert segment is not None
                key = "pos" if name == "body" else "fromto"
                segment.set(key, " ".join(f"{float(number) / 2:g}" for number in segment.get(key, "").split()))
    return ElementTree.tostring(tree.getroot(), encoding="unicode")


def model_file(crippled: bool) -> Path:
    """`model_xml` in a file of the cache, for MuJoCo to read."""
    xml = model_xml(crippled)
    path = cache_dir() / "models" / f"ant-{hashlib.sha256(xml.encode()).hexdigest()[:16]}.xml"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, xml)
    return path


class AntEnv(ant_v5.AntEnv):
    """The ant of Fu, Luo & Levine (2018): motors of gear 30 in place of 150, and no end but that of time.

    The reward is as in Gymnasium's Ant: the torso's velocity along x, less contact forces, less control; but with 0.01
    ‖a‖² in place of 0.5 ‖a‖², and without what Ant pays for staying upright. The numbers that the paper reports, from
    −59 for a policy that fails to 315, leave no room for either: random actions alone would cost 667 in 500 steps, and
    an ant that stands still would earn 500. An episode takes 500 steps. The observation `Box(27)` has no contact
    forces.

    Args:
        crippled: take the model with two short, all but powerless back legs.
        **arguments: of Gymnasium's `AntEnv`.
    """

    def __init__(self, crippled: bool = False, **arguments: Any) -> None:
        settings = {
            "terminate_when_unhealthy": False,
            "healthy_reward": 0.0,
            "ctrl_cost_weight": 0.01,
            "include_cfrc_ext_in_observation": False,
        }
        super().__init__(xml_file=str(model_file(crippled)), **(settings | arguments))
