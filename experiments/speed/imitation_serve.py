"""The loop of a worker: one JSON per line from stdin, one answer per line on stdout. Runs without our package."""

import contextlib
import json
import sys
from importlib.metadata import version


def serve(start, packages):
    """Answer the first line with the versions of `packages`, then every line by the function that `start` returns.

    `start` is given the first line.
    """
    answers = sys.stdout
    answer = start(json.loads(sys.stdin.readline()))
    print(json.dumps({"versions": {name: version(name) for name in packages}}), file=answers, flush=True)
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):  # the library prints its statistics
            found = answer(json.loads(line))
        print(json.dumps(found), file=answers, flush=True)
