"""Alias of `foir360_jax.weak_labels.study.fit_object_score`; gone in the next release."""

from foir360_jax.weak_labels.study.fit_object_score import main

if __name__ == "__main__":
  main()
