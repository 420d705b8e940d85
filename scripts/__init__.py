"""Programs that make the packaged models again. They are not part of the wheel."""
