"""Plug-ins: loading, options, the cached catalogue, scaffolding."""
