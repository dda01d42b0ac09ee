"""Training and measuring of the small segmenter."""
