"""An operator's search for one person, from one picture.

request: the record of who searches for which person, where and why, and of the hits. probe: the feature of the picture.
nearest: distances between the probe and stored vectors. descent: from an identity down to its nearest crops. search:
the ranked hits, made with the four.
"""
