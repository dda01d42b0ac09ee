"""Ranks every object of a 360-degree panorama by importance."""
