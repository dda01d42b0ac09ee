"""The other door to the command `foir360`: `python -m foir360_jax.main` is the same program.

  python -m foir360_jax.main --config=configs/tiny.py --workdir=runs/tiny

trains and evaluates; `--mode=evaluate`, `predict`, `weak_labels` and `benchmark` stand for the
subcommands of these names (`foir360 --help`).
"""

from foir360_jax.cli.command import main, start

__all__ = ["main", "start"]

if __name__ == "__main__":
  start()
