"""Intervals, paired comparisons, power, equivalence."""
