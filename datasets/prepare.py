"""`python datasets/prepare.py`: alias of `foir360 prepare`; gone in the next release."""

import sys

if __name__ == "__main__":
  from foir360_jax.cli.command import start

  sys.argv.insert(1, "prepare")
  start()
