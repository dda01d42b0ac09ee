"""How the coefficients of the weak labels were found, and what each part of the method is worth.

`sources` -> `examples` (pictures whose order is known, measured) -> `fit`, `variants`, `judge`;
`fit_object_score` and `evaluate` are commands. Ranking itself needs none of it.
"""

__all__ = []
