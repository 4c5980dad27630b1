"""Tidy rows to tables as data; no torch, no printing."""
