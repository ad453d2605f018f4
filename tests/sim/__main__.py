"""``python -m tests.sim SEED [--all] [--keys]``: replay one seed and print its flow, with
``--keys`` its grid of keys."""

from __future__ import annotations

import sys

from tests.sim.replay import replay

if __name__ == "__main__":
    options = sys.argv[2:]
    sys.exit(replay(int(sys.argv[1]), loud="--all" in options, keyed="--keys" in options))
