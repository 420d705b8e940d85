"""Feature spaces of the city: learned from a unit's own crops, and registered as models computed from another one.

learning: camera means and a basis from stored features, without labels. derived: such a model registered. overview:
whose mean each camera takes.
"""
