"""Alias of `foir360_jax.weak_labels.study.evaluate`; gone in the next release."""

from foir360_jax.weak_labels.study.evaluate import main

if __name__ == "__main__":
  main()
