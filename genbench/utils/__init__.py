"""Files, random seeds and torch state, used by every package."""
