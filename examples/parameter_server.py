"""A parameter server: one actor holds the weights, tasks compute gradients, and it learns to read.

Softmax regression on scikit-learn's 1,797 handwritten digits, trained by stochastic gradient
descent. Each worker keeps asking the server for the newest weights and hands it back a gradient of
a random part of its own shard. ``--rounds`` counts steps per worker.

    python examples/parameter_server.py --workers 4

In lockstep (default) a step averages the gradients of all workers, so the result is the same each
time. With ``--free`` each worker runs at its own pace and the server applies what comes: faster on
unequal machines, and gradients may be a few steps old.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import guactors as gu

Array = NDArray[np.float64]
CLASSES = 10
BATCH = 64
RATE = 0.5
DECAY = 1e-4


@gu.remote
class ParameterServer:
    """Owns the weights: a row per class, a column per pixel and one for the bias."""

    def __init__(self, features: int) -> None:
        self.weights = np.zeros((CLASSES, features))
        self.steps = 0

    def current(self) -> Array:
        """The weights now."""
        return self.weights

    def apply(self, *gradients: Array) -> Array:
        """One step down the mean of ``gradients``; returns the new weights."""
        self.steps += 1
        mean = np.mean(gradients, axis=0)
        self.weights = self.weights - RATE * (mean + DECAY * self.weights)
        return self.weights


def probabilities(weights: Array, images: Array) -> Array:
    """A row per image: how likely it is each of the classes."""
    scores = images @ weights.T
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@gu.remote
def gradient(weights: Array, shard: tuple[Array, NDArray[np.int64]], seed: int) -> Array:
    """Of the cross-entropy of a random batch of the shard."""
    images, digits = shard
    chosen = np.random.default_rng(seed).choice(len(images), size=BATCH, replace=False)
    error = probabilities(weights, images[chosen])
    error[np.arange(BATCH), digits[chosen]] -= 1
    return np.asarray(error.T @ images[chosen] / BATCH)


def load_digits() -> tuple[Array, NDArray[np.int64]]:
    """Images scaled to 0..1 with a constant 1 for the bias, and what they show; shuffled."""
    from sklearn.datasets import load_digits as load

    data = load()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = np.hstack([data.data / 16, np.ones((len(data.data), 1))])
    return images[order], data.target[order].astype(np.int64)


def accuracy(weights: Array, images: Array, digits: NDArray[np.int64]) -> float:
    """The share of images read rightly, 0 to 1."""
    return float((probabilities(weights, images).argmax(axis=1) == digits).mean())


def train_in_lockstep(server: Any, shards: list[Any], rounds: int) -> None:
    """Refs go from task to actor and back to tasks: nothing here waits within a round."""
    weights = server.current.remote()
    for step in range(rounds):
        seeds = range(step * len(shards), (step + 1) * len(shards))
        gradients = [
            gradient.remote(weights, shard, seed) for shard, seed in zip(shards, seeds, strict=True)
        ]
        weights = server.apply.remote(*gradients)
    gu.get(weights)


def train_freely(server: Any, shards: list[Any], rounds: int) -> None:
    """Each shard has one gradient under way; whoever is done first is served first."""
    weights = server.current.remote()
    running = {gradient.remote(weights, shard, seed): seed for seed, shard in enumerate(shards)}
    started = len(shards)
    while running:
        (done,), _ = gu.wait(list(running))
        seed = running.pop(done)
        weights = server.apply.remote(done)
        if started < rounds * len(shards):
            shard = shards[seed % len(shards)]
            running[gradient.remote(weights, shard, seed + len(shards))] = seed + len(shards)
            started += 1
    gu.get(weights)


def main(argv: list[str] | None = None) -> int:
    """0, or 1 when the training went wrong."""
    parser = argparse.ArgumentParser(description="Train on handwritten digits.")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=300, help="steps per worker (default: 300)")
    parser.add_argument("--free", action="store_true", help="no lockstep between workers")
    options = parser.parse_args(argv)

    images, digits = load_digits()
    cut = len(images) * 4 // 5
    gu.init()
    try:
        # mypy does not follow class decorators.
        server = ParameterServer.remote(images.shape[1])  # type: ignore[attr-defined]
        shards = [
            gu.put((images[first : cut : options.workers], digits[first : cut : options.workers]))
            for first in range(options.workers)
        ]
        began = time.perf_counter()
        (train_freely if options.free else train_in_lockstep)(server, shards, options.rounds)
        seconds = time.perf_counter() - began
        weights = gu.get(server.current.remote())
    finally:
        gu.shutdown()
    gradients = options.workers * options.rounds
    right = accuracy(weights, images[cut:], digits[cut:])
    print(f"{gradients} gradients of {BATCH} images by {options.workers} workers: {seconds:.1f} s")
    print(f"accuracy on {len(images) - cut} unseen digits: {right:.1%}")
    if right < 0.5:
        print("that is little better than guessing: the training went wrong", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
