"""`python -m foir360_jax.evaluation.score`: alias of `foir360 score`; gone in the next release."""

import sys

if __name__ == "__main__":
  from foir360_jax.cli.command import start

  sys.argv.insert(1, "score")
  start()
