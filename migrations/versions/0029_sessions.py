"""The actor of an audit row is the account under whose session it is written, whatever the caller says.

A row without a session that claims to be an account's says so, as does each that urban_reid_app writes in a live home.
Sessions get names, where they are tokens for scripts.
"""

from alembic import op

revision = "0029"
down_revision = "0028"

_SEAL = """
CREATE OR REPLACE FUNCTION audit_seal() RETURNS trigger
LANGUAGE plpgsql {definer}SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    noted text := coalesce(current_setting('urban_reid.audit_districts', true), '');
    own text := '/' || coalesce(split_part(NEW.unit, '/', 1), '');
BEGIN
    {actor}NEW.at := clock_timestamp();
    NEW.salt := public.audit_salt();
    NEW.commitment := sha256(NEW.salt || public.audit_fields(NEW.reason, NEW.details::text));
    IF strpos(noted || '/', own || '/') = 0 THEN
        PERFORM set_config('urban_reid.audit_districts', noted || own, true);
    END IF;
    RETURN NEW;
END $$;
"""

# Where granted() is null because an authorization has ended, the session still says who acts.
_UP = """
ALTER TABLE session ADD COLUMN name text CHECK (btrim(name) <> '');     -- a token for scripts; null: a sign-in
CREATE FUNCTION audit_actor(said text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    token text := nullif(current_setting('urban_reid.session', true), '');
    request text := nullif(current_setting('urban_reid.request', true), '');
    caller text := coalesce(nullif(current_setting('role'), 'none'), session_user);
    hashed bytea;
    found text;
BEGIN
    IF token ~ '^[0-9a-f]{64}$' THEN
        hashed := sha256(decode(token, 'hex'));
    ELSIF request ~ '^[0-9a-f-]{36}$' THEN
        SELECT r.session_hash INTO hashed FROM public.search_request AS r WHERE r.answer_key = request::uuid;
    END IF;
    SELECT a.name INTO found FROM public.session AS s JOIN public.account AS a ON a.id = s.account_id
    WHERE s.hash = hashed AND s.ended_at IS NULL AND s.expires_at > clock_timestamp()
        AND a.disabled_at IS NULL;
    IF found IS NULL AND ((public.granted()).is_open IS NULL AND caller = 'urban_reid_app'
        OR EXISTS (SELECT FROM public.account AS a WHERE a.name = btrim(said))) THEN
        RETURN said || ' (not signed in)';
    END IF;
    RETURN coalesce(found, said);
END $$;
REVOKE EXECUTE ON FUNCTION audit_actor(text) FROM PUBLIC;
GRANT SELECT ON SEQUENCE account_id_seq, account_role_id_seq TO urban_reid_app;     -- a backup reads them
"""


def upgrade() -> None:
    op.execute(_UP)
    op.execute(_filled("SECURITY DEFINER ", "NEW.actor := public.audit_actor(NEW.actor);\n    "))


def downgrade() -> None:
    op.execute(_filled("", ""))
    op.execute(
        "DROP FUNCTION audit_actor(text); ALTER TABLE session DROP COLUMN name; "
        "REVOKE SELECT ON SEQUENCE account_id_seq, account_role_id_seq FROM urban_reid_app"
    )


def _filled(definer: str, actor: str) -> str:
    return _SEAL.replace("{definer}", definer).replace("{actor}", actor)
