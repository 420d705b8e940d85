"""The webhook: an address of the user's that is told what happens, signed.

hook: the address and the secret. telling: what waits is sent until it is taken.
"""
