"""An operator's search for one person, from one picture.

request: the record of who searches for which person, where and why. probe: the feature of the picture. nearest:
distances between the probe and stored vectors. likelihood: what a distance says. posterior: the probability of each
identity and of "not here", over everything compared. descent: from an identity down to its nearest crops. search: the
ranked hits, made with these. result: their record. calibrations: the stored calibration of a level's searches.
"""
