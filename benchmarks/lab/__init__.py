"""The parts of :mod:`benchmarks.scheduler_lab`: workload, simulated grid, baselines, figures."""
