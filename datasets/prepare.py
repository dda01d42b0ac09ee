"""`python datasets/prepare.py`: the same as `foir360 prepare`."""

import sys

if __name__ == "__main__":
  from foir360_jax.cli.command import start

  sys.argv.insert(1, "prepare")
  start()
