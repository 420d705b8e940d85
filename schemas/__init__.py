"""The language of all boundaries: frozen models, keys, settings and the tree of errors. Imports nothing of ours."""
