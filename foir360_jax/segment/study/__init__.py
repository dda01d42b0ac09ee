"""How views, merging and thresholds of photographs are chosen, and how figures are reported.

`collages` (panoramas with exact masks, for choosing) or `truth` (annotated panoramas) ->
`candidates` (what a segmenter finds, kept on disk) -> `baseline` or the merge -> `measure`;
`collages`, `frames` and `group_values` are commands.
"""

__all__ = []
