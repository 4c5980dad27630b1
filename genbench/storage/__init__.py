"""Run folders: their files, their schema, locks, tidy rows, bundles."""
