"""Retention and erasure: what goes by age, what is erased on request, and the proof that it is gone."""
