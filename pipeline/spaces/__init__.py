"""Feature spaces of the city: learned from a unit's own crops, and registered as models computed from another one.

learning: camera means and a basis from stored features, without labels. derived: folder and row of such a model.
"""
