"""Recipes of published experiments, and the comparison with their published numbers."""
