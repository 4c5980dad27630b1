"""Measuring one trained run."""
