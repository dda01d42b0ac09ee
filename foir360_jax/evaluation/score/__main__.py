"""`python -m foir360_jax.evaluation.score`: an alias of `foir360 score`."""

import sys

from foir360_jax.evaluation.score.command import main

if __name__ == "__main__":
  sys.exit(main())
