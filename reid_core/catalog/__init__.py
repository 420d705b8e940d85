"""The catalog: published models by name, where their files are fetched from, and how each is known again.

`models.toml` is the data, `entries` reads it, `fetching` brings a file here, `obtaining` a whole model. Nothing that is
fetched is opened before its hash is checked, and nothing of it runs here.
"""

from reid_core.catalog.entries import (
    CatalogFile,
    CatalogModel,
    Release,
    Task,
    catalog,
    find_model,
    published_embedder,
)
from reid_core.catalog.obtaining import Obtained, is_obtained, keep_files, obtain

__all__ = [
    "CatalogFile",
    "CatalogModel",
    "Obtained",
    "Release",
    "Task",
    "catalog",
    "find_model",
    "is_obtained",
    "keep_files",
    "obtain",
    "published_embedder",
]
