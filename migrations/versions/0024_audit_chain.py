"""The audit as a chain: each row's hash covers the row before it in its district, and the database writes it.

Reasons and details may name persons. They enter the chain as a salted commitment, so that they can be erased
later while the chain still verifies. What is hashed: docs/guides/audit.md.
"""

from alembic import op

revision = "0024"
down_revision = "0023"

# audit_fields: each text as its length in bytes (8 bytes, big-endian) and its UTF-8; length -1 stands for null.
_UP = r"""
CREATE FUNCTION audit_fields(VARIADIC fields text[]) RETURNS bytea LANGUAGE sql IMMUTABLE
RETURN (
    SELECT string_agg(
        coalesce(int8send(octet_length(convert_to(f, 'UTF8'))) || convert_to(f, 'UTF8'), int8send(-1)),
        ''::bytea ORDER BY n)
    FROM unnest(fields) WITH ORDINALITY AS x (f, n)
);
CREATE FUNCTION audit_salt() RETURNS bytea LANGUAGE sql VOLATILE
RETURN uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());
CREATE FUNCTION audit_hash(before bytea, district text, place bigint, id bigint, at timestamptz, actor text,
                           action text, unit text, commitment bytea) RETURNS bytea LANGUAGE sql STABLE
RETURN sha256(
    before || public.audit_fields(
        district, place::text, id::text, (extract(epoch FROM at) * 1000000)::bigint::text, actor, action, unit)
    || commitment
);
ALTER TABLE audit ADD COLUMN salt bytea CHECK (length(salt) = 32);       -- null: reason and details are erased
ALTER TABLE audit ADD COLUMN commitment content_key;
UPDATE audit SET salt = audit_salt();
UPDATE audit SET commitment = sha256(salt || audit_fields(reason, details::text));
ALTER TABLE audit ALTER COLUMN commitment SET NOT NULL;
ALTER TABLE audit ADD CHECK (salt IS NOT NULL OR (reason IS NULL AND details = '{}'));

CREATE TABLE audit_chain (                  -- append-only, written by the database alone
    district text NOT NULL,                 -- '': rows that concern no district
    position bigint NOT NULL CHECK (position > 0),
    audit_id bigint NOT NULL UNIQUE REFERENCES audit (id),
    hash content_key NOT NULL,
    PRIMARY KEY (district, position)
);

-- Time, salt and commitment are the database's. The districts of a transaction are noted for the order of their locks.
CREATE FUNCTION audit_seal() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    noted text := coalesce(current_setting('urban_reid.audit_districts', true), '');
    own text := '/' || coalesce(split_part(NEW.unit, '/', 1), '');
BEGIN
    NEW.at := clock_timestamp();
    NEW.salt := public.audit_salt();
    NEW.commitment := sha256(NEW.salt || public.audit_fields(NEW.reason, NEW.details::text));
    IF strpos(noted || '/', own || '/') = 0 THEN
        PERFORM set_config('urban_reid.audit_districts', noted || own, true);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER audit_seal BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION audit_seal();

-- Runs at the commit, so that nobody waits for a transaction that works for long. All districts of the transaction are
-- locked in one order first: two transactions that touch the same two cannot wait for each other.
CREATE FUNCTION audit_link() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    own text := coalesce(split_part(NEW.unit, '/', 1), '');
    one text;
    last record;
BEGIN
    FOR one IN
        SELECT DISTINCT d COLLATE "C" FROM unnest(string_to_array(
            coalesce(current_setting('urban_reid.audit_districts', true), '') || '/' || own, '/')) AS d ORDER BY 1
    LOOP
        PERFORM pg_advisory_xact_lock(hashtextextended('urban_reid audit ' || one, 0));
    END LOOP;
    SELECT c.position, c.hash INTO last FROM public.audit_chain AS c
    WHERE c.district = own ORDER BY c.position DESC LIMIT 1;
    INSERT INTO public.audit_chain (district, position, audit_id, hash)
    VALUES (own, coalesce(last.position, 0) + 1, NEW.id, public.audit_hash(
        coalesce(last.hash, decode(repeat('00', 32), 'hex')), own, coalesce(last.position, 0) + 1,
        NEW.id, NEW.at, NEW.actor, NEW.action, NEW.unit, NEW.commitment));
    RETURN NULL;
END $$;
DO $$
DECLARE
    one record;
    places jsonb := '{}';
    hashes jsonb := '{}';
    district text;
    place bigint;
    hash bytea;
BEGIN
    FOR one IN SELECT * FROM public.audit ORDER BY id LOOP
        district := coalesce(split_part(one.unit, '/', 1), '');
        place := coalesce((places ->> district)::bigint, 0) + 1;
        hash := public.audit_hash(decode(coalesce(hashes ->> district, repeat('00', 32)), 'hex'), district, place,
                                  one.id, one.at, one.actor, one.action, one.unit, one.commitment);
        INSERT INTO public.audit_chain VALUES (district, place, one.id, hash);
        places := places || jsonb_build_object(district, place);
        hashes := hashes || jsonb_build_object(district, encode(hash, 'hex'));
    END LOOP;
END $$;
CREATE CONSTRAINT TRIGGER audit_link AFTER INSERT ON audit DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION audit_link();

REVOKE EXECUTE ON FUNCTION audit_link() FROM PUBLIC;
REVOKE INSERT ON audit FROM urban_reid_app;
GRANT INSERT (actor, action, unit, reason, details) ON audit TO urban_reid_app;
GRANT SELECT ON audit_chain TO urban_reid_app;
"""

_DOWN = """
DROP TABLE audit_chain;
DROP TRIGGER audit_link ON audit;
DROP TRIGGER audit_seal ON audit;
DROP FUNCTION audit_link();
DROP FUNCTION audit_seal();
DROP FUNCTION audit_hash(bytea, text, bigint, bigint, timestamptz, text, text, text, bytea);
ALTER TABLE audit DROP COLUMN salt, DROP COLUMN commitment;
DROP FUNCTION audit_salt();
DROP FUNCTION audit_fields(text[]);
REVOKE INSERT (actor, action, unit, reason, details) ON audit FROM urban_reid_app;
GRANT INSERT ON audit TO urban_reid_app;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
