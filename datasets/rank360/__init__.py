"""rank360: panoramas in which people, or weak labels, ranked every object."""
