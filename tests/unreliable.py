"""An expert of the tests that fails on the second of two processes."""

import itertools
import os

from lit_imitation.experts.scripted import cart_pole

calls = itertools.count()


def expert(observation):
    if next(calls) == 7 and os.environ.get("LOCAL_RANK") == "1":
        raise RuntimeError("the pilot has left")
    return cart_pole(observation)
