"""Where pictures and their keys lie: the data directory, or an object store."""
