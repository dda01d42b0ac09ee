"""Benchmarks: speed, memory and error of the parts that promise speed, beside their opponents.

`python -m foir360_jax.benchmarks.sphere_conv`, `.losses` and `.gpu` are the commands; the command
line's `foir360 benchmark` runs `throughput`. Nothing is imported here, so that each command needs
only what it measures.
"""

__all__ = []
