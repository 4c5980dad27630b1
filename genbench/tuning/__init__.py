"""Searches for the options of models: spaces, the algorithms that ask for trials, and the choice."""
