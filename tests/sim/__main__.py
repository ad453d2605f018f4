"""``python -m tests.sim SEED [--all]``: replay one seed and print its flow."""

from __future__ import annotations

import sys

from tests.sim.replay import replay

if __name__ == "__main__":
    sys.exit(replay(int(sys.argv[1]), loud="--all" in sys.argv))
