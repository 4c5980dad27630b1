"""The Python interface: what `import genbench` offers, and what the commands are built on."""
