"""Runs a model: in this process, in the core process behind a socket, or in a foreign engine."""
