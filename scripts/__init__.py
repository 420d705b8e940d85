"""Programs that make the packaged models again; not part of the wheel."""
