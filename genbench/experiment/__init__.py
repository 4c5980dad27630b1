"""From a configuration to checked runs: names and options, runs as data, planning."""
