"""Fitting and evaluation of the weak labels; ranking itself needs none of it.

`sources` -> `examples` (pictures whose order is known, measured) -> `fit`, `variants`, `judge`;
`fit_object_score` and `evaluate` are commands. Ranking itself needs none of it.
"""

__all__ = []
