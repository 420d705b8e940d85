"""Calibration without labels: a unit's own crops say what a distance means there.

tracklets -> rehearsal (a level's windows in memory) -> pair_sample (who cannot be one person, and who may be) ->
mixture (what a distance says) -> level_fit (with transit times and terms, operating point, how sure) -> versions (rows,
marks)
"""
