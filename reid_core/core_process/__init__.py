"""The core process of `urban-reid up`: one process that owns the device, and embeds and detects for all others.

`service` listens, `embedding` and `detection` have a bounded queue and a thread each, so that neither waits for the
other's backlog; `folders` finds what the home has.
"""
