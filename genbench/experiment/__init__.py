"""The experiment as data: its configuration, its runs, and the plan that is checked before any training."""
