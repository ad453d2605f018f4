"""The numbers that guactors promises, and what measures them: ``python -m benchmarks.numbers``."""
