"""Running a plan: one run, all runs, and the executors."""
