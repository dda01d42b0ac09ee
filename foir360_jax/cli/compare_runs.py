"""`foir360 compare-runs`: two ways to train, each with several seeds; a table and a report."""

import json
import types

from foir360_jax.evaluation.compare_runs import compare, table
from foir360_jax.files import write_atomically
from foir360_jax.files.json_file import without_nan


def run(flags: types.SimpleNamespace) -> int:
  """Runs the command; returns its exit code."""
  report = compare(flags.a, flags.b, key=flags.key)
  print(table(report))
  if flags.out:
    text = json.dumps(without_nan(report), indent=2, allow_nan=False)
    write_atomically(flags.out, (text + "\n").encode())
  return 0
