"""synthetic360: rendered panoramas in which the importance of every object is known."""
