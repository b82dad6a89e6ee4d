/**
 * Everything that Conclave does in a database, as functions of PL/pgSQL: each call is one statement, one transaction and one
 * round trip. Requests and answers are JSON; keys and values in it are base64, because JSON has no bytes.
 *
 * - READ COMMITTED: each statement of a volatile function sees what was committed before it, so whatever is read after a
 *   namespace's row was locked is its latest state. What only reads is STABLE instead: one snapshot, no lock.
 * - Refusals are exceptions with SQLSTATEs of ours (CV...), so that nothing of a refused call stays.
 * - Answers {"again": ...} ask the client for another call first: `expire` a dead session that is in the way, or `adopt` a
 *   server that is new to the leases. Both are rare, and would need locks in another order than the call itself.
 * - Names end in a hash of all texts: clients of different versions use their own functions side by side, on one layout.
 *
 * The timeline is how a promoted replica is known: it may lack the last commits of the primary before it, renewals and
 * grants among them. So on a new timeline every session ends, and none begins until every holder of before has stopped
 * by its own clock (research "failover quarantine").
 */
import { createHash } from "node:crypto";
import { layoutVersion } from "./tables.ts";

/** SQLSTATEs of refusals; DETAIL carries the key in base64, or a number. */
export const refusals = {
  sessionExpired: "CV001",
  notANumber: "CV002",
  txnTooLarge: "CV003",
  revisionLimit: "CV004",
  wrongProtocol: "CV005",
  quarantined: "CV006",
  sumTooLarge: "CV007",
} as const;

/** Inside of the subtransaction of `lock` alone: somebody holds it. */
const busy = "CV099";

const revisionMax = "9007199254740990";
const entryJson = (of: string, value = `encode(${of}.value, 'base64')`): string =>
  `json_build_array(encode(${of}.key, 'base64'), ${of}.created, ${of}.modified, ${of}.version, ${of}.session, ${value})`;
const microseconds = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
const nextMs =
  "coalesce((SELECT ceil(greatest(0, extract(epoch FROM min(s.deadline) - clock_timestamp()) * 1000))::bigint FROM S.sessions s), -1)";

/** Durable where the session's own setting would not be: a lock that was answered must not vanish in a crash. */
const beginning = `
  IF current_setting('synchronous_commit') IN ('off', 'local') THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;`;

const knowLayout = `
  SELECT * INTO STRICT meta FROM S.meta;
  IF meta.layout > ${layoutVersion} THEN
    RAISE EXCEPTION 'a newer layout' USING ERRCODE = '${refusals.wrongProtocol}', DETAIL = meta.layout::text;
  END IF;`;

/** Is this the server that the sessions stand on? `given` is what to believe where no timeline can be asked for. */
const server = `
CREATE FUNCTION S.server_H(given text) RETURNS text LANGUAGE sql VOLATILE AS $f$
  SELECT coalesce(given, substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)
    || '/' || (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
$f$`;

const satisfies = (type: string): string => `
CREATE FUNCTION S.satisfies_H(operator text, own ${type}, other ${type}) RETURNS boolean LANGUAGE sql IMMUTABLE AS $f$
  SELECT CASE operator WHEN '=' THEN own = other WHEN '!' THEN own <> other WHEN '<' THEN own < other ELSE own > other END
$f$`;

/** Locks a namespace's row, and makes it where there is none; it begins at the clock, and never below one that was tidied away. */
const enter = `
CREATE FUNCTION S.enter_H(wanted bytea) RETURNS bigint LANGUAGE plpgsql AS $f$
DECLARE
  found_revision bigint;
BEGIN
  LOOP
    SELECT n.revision INTO found_revision FROM S.namespaces n WHERE n.name = wanted FOR NO KEY UPDATE;
    IF FOUND THEN RETURN found_revision; END IF;
    INSERT INTO S.namespaces (name, revision)
      SELECT wanted, greatest(${microseconds}, m.floor + 1) FROM S.meta m ON CONFLICT DO NOTHING;
  END LOOP;
END
$f$`;

/** Tells those who watch what one revision changed: pairs of entries before and after. 8,000 bytes are the server's limit. */
const tell = `
CREATE FUNCTION S.tell_H(namespace_told bytea, revision bigint, changes json) RETURNS void LANGUAGE plpgsql AS $f$
DECLARE
  payload text;
BEGIN
  payload := json_build_object('n', encode(namespace_told, 'base64'), 'r', revision, 'e', changes)::text;
  IF octet_length(payload) > 7900 THEN
    payload := json_build_object('n', encode(namespace_told, 'base64'), 'r', revision)::text;
  END IF;
  PERFORM pg_notify(w.channel, payload) FROM S.watchers w
    WHERE w.namespace = namespace_told AND w.until > clock_timestamp();
END
$f$`;

/** Of a session whose row the caller has locked. */
const endSession = `
CREATE FUNCTION S.end_H(ended bigint) RETURNS void LANGUAGE plpgsql AS $f$
DECLARE
  place bytea;
  next bigint;
  gone json;
BEGIN
  FOR place IN SELECT DISTINCT e.namespace FROM S.entries e WHERE e.session = ended ORDER BY e.namespace LOOP
    next := S.enter_H(place) + 1;
    WITH deleted AS (DELETE FROM S.entries e WHERE e.session = ended AND e.namespace = place RETURNING e.*)
      SELECT json_agg(json_build_array(${entryJson("d")}, null)) INTO gone FROM deleted d;
    IF gone IS NULL THEN CONTINUE; END IF;
    UPDATE S.namespaces n SET revision = next, at = clock_timestamp() WHERE n.name = place;
    IF EXISTS (SELECT FROM S.watchers w WHERE w.namespace = place) THEN PERFORM S.tell_H(place, next, gone); END IF;
  END LOOP;
  DELETE FROM S.sessions s WHERE s.id = ended;
END
$f$`;

/** One dead session: any that nobody else is ending, or, where namespaces are named, one with keys there, awaited. */
const expire = `
CREATE FUNCTION S.expire_H(places bytea[], lock_ms integer) RETURNS json LANGUAGE plpgsql AS $f$
DECLARE
  due bigint;
BEGIN
  ${beginning}
  PERFORM set_config('lock_timeout', lock_ms::text, true);
  IF places IS NULL THEN
    SELECT s.id INTO due FROM S.sessions s WHERE s.deadline <= clock_timestamp()
      ORDER BY s.deadline LIMIT 1 FOR UPDATE SKIP LOCKED;
  ELSE
    SELECT s.id INTO due FROM S.sessions s WHERE s.deadline <= clock_timestamp()
      AND EXISTS (SELECT FROM S.entries e WHERE e.session = s.id AND e.namespace = ANY (places))
      ORDER BY s.id LIMIT 1 FOR UPDATE;
  END IF;
  IF due IS NOT NULL THEN PERFORM S.end_H(due); END IF;
  RETURN json_build_object('ended', due IS NOT NULL, 'next', ${nextMs});
END
$f$`;

/** Every session ends, and none begins for a while: the server is another one than the sessions stand on. */
const adopt = `
CREATE FUNCTION S.adopt_H(quarantine_ms bigint, ttl_ms_default bigint, given text) RETURNS void LANGUAGE plpgsql AS $f$
DECLARE
  meta record;
  ended record;
BEGIN
  ${beginning}
  SELECT * INTO STRICT meta FROM S.meta FOR UPDATE;
  IF meta.server = S.server_H(given) THEN RETURN; END IF;
  PERFORM FROM S.sessions s ORDER BY s.id FOR UPDATE;
  PERFORM FROM S.namespaces n ORDER BY n.name FOR NO KEY UPDATE;
  -- Revisions that were answered by the server before may be lost: all go on above the clock.
  UPDATE S.namespaces n SET revision = greatest(n.revision + 1, ${microseconds});
  FOR ended IN SELECT s.id FROM S.sessions s ORDER BY s.id LOOP
    PERFORM S.end_H(ended.id);
  END LOOP;
  UPDATE S.meta m SET server = S.server_H(given), floor = greatest(m.floor, ${microseconds}),
    quarantine = CASE WHEN quarantine_ms < 0 THEN '-infinity'
      ELSE clock_timestamp() + (quarantine_ms + greatest(m.ttl_ms, ttl_ms_default)) * interval '1 millisecond' END;
END
$f$`;

const open = `
CREATE FUNCTION S.open_H(ttl_ms_asked bigint, given text) RETURNS json LANGUAGE plpgsql AS $f$
DECLARE
  meta record;
  opened bigint;
BEGIN
  ${beginning}
  ${knowLayout.replace("FROM S.meta", "FROM S.meta FOR UPDATE")}
  IF meta.server <> S.server_H(given) THEN RETURN json_build_object('again', 'adopt'); END IF;
  IF meta.quarantine > clock_timestamp() THEN
    RAISE EXCEPTION 'quarantine' USING ERRCODE = '${refusals.quarantined}',
      DETAIL = ceil(extract(epoch FROM meta.quarantine - clock_timestamp()) * 1000)::text;
  END IF;
  opened := greatest(${microseconds}, meta.session + 1);
  UPDATE S.meta m SET session = opened, ttl_ms = greatest(m.ttl_ms, ttl_ms_asked);
  INSERT INTO S.sessions (id, deadline) VALUES (opened, clock_timestamp() + ttl_ms_asked * interval '1 millisecond');
  RETURN json_build_object('id', opened::text, 'next', ${nextMs});
END
$f$`;

/** Never revives one whose time is up, whether or not somebody has ended it yet. */
const keepAlive = `
CREATE FUNCTION S.keep_alive_H(ids bigint[], ttls_ms bigint[], given text) RETURNS json LANGUAGE plpgsql AS $f$
DECLARE
  meta record;
  alive bigint[];
BEGIN
  ${beginning}
  ${knowLayout}
  IF meta.server <> S.server_H(given) THEN RETURN json_build_object('again', 'adopt'); END IF;
  PERFORM FROM S.sessions s WHERE s.id = ANY (ids) ORDER BY s.id FOR NO KEY UPDATE;
  WITH renewed AS (
    UPDATE S.sessions s SET deadline = clock_timestamp() + asked.ttl_ms * interval '1 millisecond'
      FROM unnest(ids, ttls_ms) AS asked (id, ttl_ms)
      WHERE s.id = asked.id AND s.deadline > clock_timestamp() RETURNING s.id)
    SELECT array_agg(r.id) INTO alive FROM renewed r;
  RETURN json_build_object('next', ${nextMs},
    'alive', (SELECT json_agg(coalesce(asked.id = ANY (alive), false) ORDER BY asked.at)
      FROM unnest(ids) WITH ORDINALITY AS asked (id, at)));
END
$f$`;

const close = `
CREATE FUNCTION S.close_H(closed bigint, lock_ms integer) RETURNS void LANGUAGE plpgsql AS $f$
BEGIN
  ${beginning}
  PERFORM set_config('lock_timeout', lock_ms::text, true);
  PERFORM FROM S.sessions s WHERE s.id = closed FOR UPDATE;
  IF FOUND THEN PERFORM S.end_H(closed); END IF;
END
$f$`;

/** Behind the namespace's row: whoever wrote before is seen by the reading that follows, whoever writes later tells. */
const watch = `
CREATE FUNCTION S.watch_H(wanted bytea, told_by text, ttl_ms bigint, lock_ms integer) RETURNS void LANGUAGE plpgsql AS $f$
BEGIN
  PERFORM set_config('lock_timeout', lock_ms::text, true);
  PERFORM S.enter_H(wanted);
  INSERT INTO S.watchers (namespace, channel, until)
    VALUES (wanted, told_by, clock_timestamp() + ttl_ms * interval '1 millisecond')
    ON CONFLICT (namespace, channel) DO UPDATE SET until = excluded.until;
END
$f$`;

/** Revisions of namespaces, for those who cannot listen; -1 where there is none. */
const look = `
CREATE FUNCTION S.look_H(places bytea[]) RETURNS json LANGUAGE sql STABLE AS $f$
  SELECT json_build_object(
    'revisions', (SELECT json_agg(coalesce(n.revision, -1) ORDER BY asked.at)
      FROM unnest(places) WITH ORDINALITY AS asked (name, at) LEFT JOIN S.namespaces n ON n.name = asked.name))
$f$`;

/** Namespaces without keys that nobody wrote to for an hour, and watchers that are gone. */
const tidy = `
CREATE FUNCTION S.tidy_H() RETURNS integer LANGUAGE plpgsql AS $f$
DECLARE
  removed integer;
  highest bigint;
BEGIN
  PERFORM FROM S.meta FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN RETURN 0; END IF;
  DELETE FROM S.watchers w WHERE w.until < clock_timestamp() - interval '1 minute';
  WITH idle AS (
    SELECT n.name FROM S.namespaces n WHERE n.at < clock_timestamp() - interval '1 hour'
      AND NOT EXISTS (SELECT FROM S.entries e WHERE e.namespace = n.name)
      AND NOT EXISTS (SELECT FROM S.watchers w WHERE w.namespace = n.name)
      ORDER BY n.name LIMIT 1000 FOR UPDATE SKIP LOCKED),
  gone AS (DELETE FROM S.namespaces n USING idle i WHERE n.name = i.name
      AND NOT EXISTS (SELECT FROM S.entries e WHERE e.namespace = n.name) RETURNING n.revision)
    SELECT count(*), max(g.revision) INTO removed, highest FROM gone g;
  UPDATE S.meta m SET floor = greatest(m.floor, highest) WHERE highest IS NOT NULL;
  RETURN removed;
END
$f$`;

/** The same steps for what reads and for what writes; only the latter locks, writes and tells. */
function txn(isReading: boolean): string {
  const write = (text: string): string => (isReading ? "" : text);
  const selection = `FROM S.entries i WHERE i.namespace = place AND i.key >= low AND (high IS NULL OR i.key < high)
          AND (created_before IS NULL OR i.created < created_before)`;
  const listing = (order: string): string => `
        SELECT coalesce(json_agg(CASE WHEN keys_only THEN ${entryJson("x", "''")} ELSE ${entryJson("x")} END), '[]'),
          coalesce(sum(octet_length(x.key) + CASE WHEN keys_only THEN 0 ELSE octet_length(x.value) END), 0)
          INTO listed, spent FROM (SELECT i.* ${selection} ORDER BY ${order} LIMIT at_most) x;`;
  return `
CREATE FUNCTION S.${isReading ? "read" : "txn"}_H(request json, ignore_due boolean, lock_ms integer, bytes_max bigint, given text)
RETURNS json LANGUAGE plpgsql ${isReading ? "STABLE" : "VOLATILE"} AS $f$
DECLARE
  meta record;
  places bytea[];
  watched boolean[];
  wanted bigint[];
  alive bigint[];
  revision bigint;
  next bigint;
  compare json;
  operation json;
  e S.entries;
  succeeded boolean := true;
  holds boolean;
  place bytea;
  place_at integer;
  low bytea;
  high bytea;
  created_before bigint;
  at_most bigint;
  keys_only boolean;
  by_create boolean;
  target text;
  is_there boolean;
  listed json;
  counted bigint;
  spent bigint;
  bytes_left bigint := bytes_max;
  results json[] := '{}';
  result json;
  digits text;
  added numeric;
  written boolean := false;
  before jsonb := '{}';
  touched text;
BEGIN
  ${knowLayout}
  SELECT array_agg(decode(x.value, 'base64')) INTO places FROM json_array_elements_text(request->'n') AS x;
  IF NOT ignore_due AND EXISTS (SELECT FROM S.sessions s WHERE s.deadline <= clock_timestamp()
      AND EXISTS (SELECT FROM S.entries b WHERE b.session = s.id AND b.namespace = ANY (places))) THEN
    RETURN json_build_object('again', 'expire');
  END IF;
  ${write(`
  ${beginning}
  PERFORM set_config('lock_timeout', lock_ms::text, true);
  IF json_array_length(request->'s') > 0 THEN
    IF meta.server <> S.server_H(given) THEN RETURN json_build_object('again', 'adopt'); END IF;
    SELECT array_agg(x.value::bigint) INTO wanted FROM json_array_elements_text(request->'s') AS x;
    -- Ended by nobody until this commits; keep-alives pass.
    SELECT array_agg(l.id) INTO alive FROM (
      SELECT s.id FROM S.sessions s WHERE s.id = ANY (wanted) AND s.deadline > clock_timestamp()
        ORDER BY s.id FOR KEY SHARE) l;
  END IF;`)}
  revision := null;
  next := 0;
  FOREACH place IN ARRAY places LOOP
    ${
      isReading
        ? "counted := coalesce((SELECT n.revision FROM S.namespaces n WHERE n.name = place), meta.floor);"
        : `counted := S.enter_H(place);
    watched := watched || EXISTS (SELECT FROM S.watchers w WHERE w.namespace = place AND w.until > clock_timestamp());`
    }
    revision := least(revision, counted);
    next := greatest(next, counted + 1);
  END LOOP;

  FOR compare IN SELECT x.value FROM json_array_elements(request->'c') AS x LOOP
    place := places[(compare->>1)::integer];
    low := decode(compare->>2, 'base64');
    target := compare->>4;
    IF compare->>0 = 'k' THEN
      SELECT * INTO e FROM S.entries x WHERE x.namespace = place AND x.key = low;
      is_there := FOUND;
      holds := CASE target
        WHEN 'e' THEN is_there = (compare->>6)::boolean
        WHEN 'v' THEN CASE WHEN is_there THEN S.satisfies_H(compare->>5, e.value, decode(compare->>6, 'base64'))
          ELSE compare->>5 = '!' END
        WHEN 's' THEN (e.session IS NOT DISTINCT FROM (compare->>6)::bigint) = (compare->>5 = '=')
        ELSE S.satisfies_H(compare->>5, CASE WHEN NOT is_there THEN 0 WHEN target = 'c' THEN e.created
          WHEN target = 'm' THEN e.modified ELSE e.version END, (compare->>6)::bigint) END;
    ELSE
      high := decode(compare->>3, 'base64');
      holds := NOT EXISTS (SELECT FROM S.entries x WHERE x.namespace = place AND x.key >= low AND (high IS NULL OR x.key < high)
        AND NOT CASE target
          WHEN 'e' THEN (compare->>6)::boolean
          WHEN 'v' THEN S.satisfies_H(compare->>5, x.value, decode(compare->>6, 'base64'))
          WHEN 's' THEN (x.session IS NOT DISTINCT FROM (compare->>6)::bigint) = (compare->>5 = '=')
          ELSE S.satisfies_H(compare->>5, CASE target WHEN 'c' THEN x.created WHEN 'm' THEN x.modified ELSE x.version END,
            (compare->>6)::bigint) END);
    END IF;
    IF NOT holds THEN
      succeeded := false;
      EXIT;
    END IF;
  END LOOP;

  FOR operation IN SELECT x.value FROM json_array_elements(request->(CASE WHEN succeeded THEN 't' ELSE 'e' END)) AS x LOOP
    place_at := (operation->>1)::integer;
    place := places[place_at];
    low := decode(operation->>2, 'base64');
    result := null;
    CASE operation->>0
    WHEN 'g' THEN
      SELECT * INTO e FROM S.entries x WHERE x.namespace = place AND x.key = low;
      IF FOUND THEN
        result := ${entryJson("e")};
        bytes_left := bytes_left - octet_length(e.key) - octet_length(e.value);
      END IF;
    WHEN 'r' THEN
      high := decode(operation->>3, 'base64');
      by_create := (operation->>4)::boolean;
      keys_only := (operation->>6)::boolean;
      at_most := (operation->>7)::bigint;
      created_before := (operation->>8)::bigint;
      SELECT count(*) INTO counted ${selection};
      IF by_create THEN
        IF (operation->>5)::boolean THEN ${listing("i.created DESC, i.key DESC")}
        ELSE ${listing("i.created, i.key")} END IF;
      ELSIF (operation->>5)::boolean THEN ${listing("i.key DESC")}
      ELSE ${listing("i.key")} END IF;
      bytes_left := bytes_left - spent;
      result := json_build_array(counted, listed);
    ${write(`
    WHEN 'p' THEN
      IF operation->>4 IS NOT NULL AND coalesce(NOT (operation->>4)::bigint = ANY (alive), true) THEN
        RAISE EXCEPTION 'session' USING ERRCODE = '${refusals.sessionExpired}', DETAIL = operation->>2, HINT = operation->>4;
      END IF;
      SELECT * INTO e FROM S.entries x WHERE x.namespace = place AND x.key = low;
      is_there := FOUND;
      IF is_there AND (operation->>5)::boolean THEN
        result := ${entryJson("e")};
        bytes_left := bytes_left - octet_length(e.key) - octet_length(e.value);
      END IF;
      touched := place_at || ':' || encode(low, 'hex');
      IF watched[place_at] AND NOT before ? touched THEN
        before := before || jsonb_build_object(touched, CASE WHEN is_there THEN ${entryJson("e")} END);
      END IF;
      INSERT INTO S.entries (namespace, key, value, created, modified, version, session)
        VALUES (place, low, decode(operation->>3, 'base64'), next, next, 1, (operation->>4)::bigint)
        ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value, modified = next,
          version = entries.version + 1, session = excluded.session;
      written := true;
    WHEN 'd' THEN
      high := decode(operation->>3, 'base64');
      listed := '[]';
      counted := 0;
      IF watched[place_at] OR (operation->>4)::boolean THEN
        SELECT coalesce(json_agg(${entryJson("x")} ORDER BY x.key), '[]'), count(*),
          coalesce(sum(octet_length(x.key) + octet_length(x.value)), 0) INTO listed, counted, spent
          FROM S.entries x WHERE x.namespace = place AND x.key >= low AND (high IS NULL OR x.key < high);
        IF watched[place_at] THEN
          before := (SELECT coalesce(jsonb_object_agg(place_at || ':' || encode(decode(l.value->>0, 'base64'), 'hex'), l.value::jsonb), '{}')
            FROM json_array_elements(listed) AS l) || before;
        END IF;
        IF (operation->>4)::boolean THEN bytes_left := bytes_left - spent; ELSE listed := '[]'; END IF;
      END IF;
      DELETE FROM S.entries x WHERE x.namespace = place AND x.key >= low AND (high IS NULL OR x.key < high);
      GET DIAGNOSTICS counted = ROW_COUNT;
      IF counted > 0 THEN written := true; END IF;
      result := json_build_array(counted, listed);
    WHEN 'a' THEN
      SELECT * INTO e FROM S.entries x WHERE x.namespace = place AND x.key = low;
      is_there := FOUND;
      added := 0;
      IF is_there THEN
        digits := CASE WHEN octet_length(e.value) <= 32 THEN encode(e.value, 'escape') ELSE '' END;
        IF digits !~ '^-?[0-9]+$' OR abs(digits::numeric) > 9007199254740991 THEN
          RAISE EXCEPTION 'value' USING ERRCODE = '${refusals.notANumber}', DETAIL = operation->>2;
        END IF;
        added := digits::numeric;
      END IF;
      added := added + (operation->>3)::numeric;
      IF abs(added) > 9007199254740991 THEN
        RAISE EXCEPTION 'sum' USING ERRCODE = '${refusals.sumTooLarge}', DETAIL = operation->>2;
      END IF;
      touched := place_at || ':' || encode(low, 'hex');
      IF watched[place_at] AND NOT before ? touched THEN
        before := before || jsonb_build_object(touched, CASE WHEN is_there THEN ${entryJson("e")} END);
      END IF;
      INSERT INTO S.entries (namespace, key, value, created, modified, version, session)
        VALUES (place, low, convert_to(added::text, 'UTF8'), next, next, 1, null)
        ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value, modified = next, version = entries.version + 1;
      written := true;
      result := to_json(added);`)}
    END CASE;
    IF bytes_left < 0 THEN
      RAISE EXCEPTION 'bytes' USING ERRCODE = '${refusals.txnTooLarge}', DETAIL = operation->>2;
    END IF;
    results := results || coalesce(result, 'null');
  END LOOP;
  ${write(`
  IF written THEN
    IF next > ${revisionMax} THEN
      RAISE EXCEPTION 'revision' USING ERRCODE = '${refusals.revisionLimit}', DETAIL = '';
    END IF;
    revision := next;
    -- Also of what was only read: a watch that goes on from this revision must miss nothing there.
    UPDATE S.namespaces n SET revision = next, at = clock_timestamp() WHERE n.name = ANY (places);
    IF before <> '{}' THEN
      FOR place_at IN 1 .. array_length(places, 1) LOOP
        CONTINUE WHEN NOT watched[place_at];
        SELECT json_agg(json_build_array(CASE WHEN b.value <> 'null' THEN b.value END,
          CASE WHEN x.key IS NOT NULL THEN ${entryJson("x")} END)) INTO listed
          FROM jsonb_each(before) AS b LEFT JOIN S.entries x ON x.namespace = places[place_at]
            AND x.key = decode(split_part(b.key, ':', 2), 'hex')
          WHERE split_part(b.key, ':', 1) = place_at::text AND (b.value <> 'null' OR x.key IS NOT NULL);
        IF listed IS NOT NULL THEN PERFORM S.tell_H(places[place_at], next, listed); END IF;
      END LOOP;
    END IF;
  END IF;`)}
  RETURN json_build_object('revision', revision, 'succeeded', succeeded, 'results', array_to_json(results));
END
$f$`;
}

/**
 * A lock for the rest of the caller's own transaction: the namespace's row, while its queue is empty. Null: still held by
 * somebody when the time was up. Whoever joins the queue meanwhile waits at the row, so the queue's order is not known to it.
 */
const lock = `
CREATE FUNCTION S.lock_H(wanted bytea, wait_ms integer, given text) RETURNS bigint LANGUAGE plpgsql AS $f$
DECLARE
  meta record;
  token bigint;
  due bigint;
  until timestamptz := clock_timestamp() + wait_ms * interval '1 millisecond';
  timeout_before text := current_setting('lock_timeout');
BEGIN
  ${beginning}
  ${knowLayout}
  IF meta.ttl_ms > 0 AND (meta.server <> S.server_H(given) OR meta.quarantine > clock_timestamp()) THEN
    RAISE EXCEPTION 'quarantine' USING ERRCODE = '${refusals.quarantined}',
      DETAIL = greatest(1, ceil(extract(epoch FROM greatest(meta.quarantine, clock_timestamp()) - clock_timestamp()) * 1000))::text;
  END IF;
  LOOP
    -- What this takes and does not keep goes with the subtransaction.
    BEGIN
      PERFORM set_config('lock_timeout',
        greatest(1, ceil(extract(epoch FROM until - clock_timestamp()) * 1000))::bigint::text, true);
      SELECT s.id INTO due FROM S.sessions s WHERE s.deadline <= clock_timestamp()
        AND EXISTS (SELECT FROM S.entries e WHERE e.session = s.id AND e.namespace = wanted) ORDER BY s.id LIMIT 1 FOR UPDATE;
      IF due IS NOT NULL THEN PERFORM S.end_H(due); END IF;
      token := S.enter_H(wanted) + 1;
      IF EXISTS (SELECT FROM S.entries e WHERE e.namespace = wanted) THEN
        RAISE EXCEPTION 'busy' USING ERRCODE = '${busy}';
      END IF;
      UPDATE S.namespaces n SET revision = token, at = clock_timestamp() WHERE n.name = wanted;
      PERFORM set_config('lock_timeout', timeout_before, true);
      RETURN token;
    EXCEPTION
      WHEN SQLSTATE '${busy}' OR lock_not_available THEN
        IF clock_timestamp() >= until THEN RETURN null; END IF;
    END;
    PERFORM pg_sleep(least(0.02, greatest(0, extract(epoch FROM until - clock_timestamp()))));
  END LOOP;
END
$f$`;

/** Keeps the hold's key from being deleted, by anybody and for any reason, until the caller's own transaction ends. */
const guard = `
CREATE FUNCTION S.guard_H(place bytea, held bytea, created_at bigint) RETURNS boolean LANGUAGE plpgsql AS $f$
BEGIN
  PERFORM FROM S.entries e WHERE e.namespace = place AND e.key = held AND e.created = created_at FOR KEY SHARE;
  RETURN FOUND;
END
$f$`;

const texts: readonly string[] = [
  server,
  satisfies("bigint"),
  satisfies("bytea"),
  enter,
  tell,
  endSession,
  expire,
  adopt,
  open,
  keepAlive,
  close,
  watch,
  look,
  tidy,
  txn(true),
  txn(false),
  lock,
  guard,
];

/** Ends the name of every function of this version. */
export const versionHash = createHash("sha1").update(texts.join("\n")).digest("hex").slice(0, 8);

/** Every function of this version, in an order in which they can be made. `S` stands for the schema. */
export const functionStatements: readonly string[] = texts.map((text) =>
  text.trim().replaceAll("_H(", `_${versionHash}(`).replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"),
);

/** `S.` at the beginning of a name becomes the schema. */
export function placed(statement: string, schema: string): string {
  return statement.replace(/\bS\b(?=\.|$)/g, schema);
}
