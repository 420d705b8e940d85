"""Decisions and versions of identities store the hash of their canonical row, of which the decision digest is made."""

from alembic import op

revision = "0009"
down_revision = "0008"


def _part(tag: str, data: str) -> str:
    """An SQL expression (bytea) of one part of `schemas.keys.content_hash`: tag, length and data."""
    return f"('{tag}'::bytea || int8send(octet_length({data})) || {data})"


def _text(expression: str, tag: str = "s") -> str:
    return _part(tag, f"convert_to(({expression})::text, 'UTF8')")


_WINDOW = _text("(extract(epoch FROM r.window_start) * 1000000)::bigint", "i")
_DECISION = " || ".join(
    [_text("'decision'"), _text("r.unit"), _text("r.level"), _WINDOW, _text("d.verdict")]
    + [_part("b", f"d.{side}_key::bytea") for side in ("left", "right")]
)
_GROUP = " || ".join([_text("'group'"), _text("i.unit"), _text("i.level"), "coalesce(below.parts, '')"])

_VIEW = """
CREATE OR REPLACE VIEW identity_now AS
SELECT * FROM (
    SELECT DISTINCT ON (i.unit, i.persistent_id) i.* FROM identity i JOIN run r ON r.id = i.run_id
    WHERE r.superseded_at IS NULL ORDER BY i.unit, i.persistent_id, i.window_start DESC
) AS newest WHERE NOT retired;
"""
_UP = f"""
ALTER TABLE match_decision ADD COLUMN row_hash content_key;
ALTER TABLE identity ADD COLUMN row_hash content_key;
UPDATE match_decision d SET row_hash = sha256({_DECISION}) FROM run r WHERE r.id = d.run_id;
UPDATE identity i SET row_hash = sha256({_GROUP}) FROM (
    SELECT v.id, string_agg({_part("b", "t.key::bytea")}, '' ORDER BY t.key) AS parts
    FROM identity v LEFT JOIN LATERAL unnest(v.tracklets) AS held (id) ON true LEFT JOIN identity t ON t.id = held.id
    GROUP BY v.id
) AS below WHERE below.id = i.id;
ALTER TABLE match_decision ALTER COLUMN row_hash SET NOT NULL;
ALTER TABLE identity ALTER COLUMN row_hash SET NOT NULL;
"""
_DOWN = """
DROP VIEW identity_now;
ALTER TABLE identity DROP COLUMN row_hash;
ALTER TABLE match_decision DROP COLUMN row_hash;
"""


def upgrade() -> None:
    op.execute(_UP)
    op.execute(_VIEW)


def downgrade() -> None:
    op.execute(_DOWN)
    op.execute(_VIEW)
    op.execute("GRANT SELECT, INSERT ON identity_now TO urban_reid_app")
