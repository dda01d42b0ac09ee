"""Training and measuring of the small segmenter.

`pictures` -> `augmentation` -> `targets` -> `objective`, and `evaluation`; `run` is what the
command line calls.
"""

__all__ = []
