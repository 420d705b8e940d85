"""An operator's search for one person, from one picture or several.

request: the record of who searches for which person, where and why. people: the people in a picture, the crops of an
identity. probe: the feature of the pictures. known: the identities that are compared, read from the database or kept
in memory (index, index_rows). narrowing: who was at some places or hours, and nobody who is ruled out. nearest:
distances between the probe and stored vectors; fast_distances: very many of them. likelihood: what a distance says.
posterior: the probability of each identity and of "not here", over everything compared. descent: from identities down
to their nearest crops. search: the ranked hits, made with these. result: their record. recall: what a shortlist
missed. answer: a written request, answered; service: by a process that keeps the index; client: asks it.
calibrations: the stored calibration of a level's searches.
"""
