"""Files, random state and torch state: what every layer uses."""
