"""The doors through which crops come in: a manifest, a data set in a known layout, a video, simulated features.

Manifest, data set and video turn their source into `Candidate`s; `crop_writer.take_in` does the rest for all of them.
"""
