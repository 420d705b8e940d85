"""Backups of a city: its database, its crops and its models in one folder, checked and restored.

DIR/manifest.json          what the backup is: written last, it names the two files below; see `manifest`
DIR/database-TIME.dump     the database, in pg_dump's format
DIR/files-TIME.jsonl       a line a file of the data directory: its path, hash and size
DIR/objects/ab/cdef...     the files by the SHA-256 of their content; see `objects`
DIR/backup.lock            held while a backup is written

A backup of the same city into the same folder copies only what is not there. Until its manifest is in place the one
before it is whole, and after that nothing of the one before is kept.
"""

from pipeline.backup.manifest import Manifest
from pipeline.backup.restore import Restored, restore, restore_dump
from pipeline.backup.verify import Verified, verify
from pipeline.backup.write import BackedUp, backup

__all__ = ["BackedUp", "Manifest", "Restored", "Verified", "backup", "restore", "restore_dump", "verify"]
