-- Bodies of new alerts are kept packed: those of one transaction and one severity, compressed together, in one row.
-- As a row each they cost a page each, written twice (docs/figures.md).
--
-- Nothing is converted: an alert of schema 1 keeps its row of alert_body until it is forgotten. A body is looked for in
-- the pack whose range of ids the alert's is in, else in alert_body.
--
-- For who copies or salvages rows (no foreign key leads to or from the new tables):
--   body_pack    crc is CRC-32C over first_id, last_id, unpacked (each eight bytes, little-endian), then the length of
--                `bodies` (eight bytes) and `bodies` itself. A pack without alerts is harmless and may be deleted; an
--                alert without a pack is shown and claimed as damaged. The ids of a pack are consecutive.
--   fingerprint  can be made anew from alert: delete its rows and those of meta whose keys are 'indexed_to',
--                'index_pass' and 'tidied_to', and the next start reads them from the alerts. A row whose alert is gone is harmless.
CREATE TABLE body_pack (
    first_id INTEGER PRIMARY KEY,               -- the first alert of it
    last_id  INTEGER NOT NULL CHECK (last_id >= first_id),
    unpacked INTEGER NOT NULL CHECK (unpacked BETWEEN 1 AND 1048576),  -- bytes
    crc      INTEGER NOT NULL,
    bodies   BLOB    NOT NULL                   -- an LZ4 block; store/body.rs has what is in it
) STRICT;

-- What came of each send, by rows that are appended: `attempt`, keyed by the same two numbers without a rowid, rewrote
-- four pages for each it filled. Outcomes of schema 1 stay in `attempt` until their alert is forgotten.
CREATE TABLE outcome (
    id          INTEGER PRIMARY KEY,            -- delivery_id * 32 + n % 32; fewer than 32 are kept
    n           INTEGER NOT NULL CHECK (n > 0),
    started_at  INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    outcome     TEXT    NOT NULL,
    status      INTEGER,
    message     TEXT
) STRICT;

-- Promise 2, one live ticket per alert, destination and table, still by the schema: the index that held it was written
-- at each opening and each settling; the unique key of the table answers the same question.
CREATE TRIGGER ticket_live_insert BEFORE INSERT ON ticket
WHEN new.state IN ('opening', 'open') AND EXISTS (
    SELECT 1 FROM ticket WHERE alert_id = new.alert_id AND route_id = new.route_id AND state IN ('opening', 'open'))
BEGIN
    SELECT raise(ABORT, 'a second live ticket');
END;

CREATE TRIGGER ticket_live_update BEFORE UPDATE OF alert_id, route_id, state ON ticket
WHEN new.state IN ('opening', 'open') AND EXISTS (
    SELECT 1 FROM ticket WHERE alert_id = new.alert_id AND route_id = new.route_id AND state IN ('opening', 'open')
       AND id <> new.id)
BEGIN
    SELECT raise(ABORT, 'a second live ticket');
END;

DROP INDEX ticket_live;

-- What is claimed counts as pending, and is told apart by the few rows that are claimed: a claim then moves no counter.
UPDATE tally SET value = value + coalesce(
    (SELECT c.value FROM tally c WHERE c.scope = tally.scope AND c.name = 'claimed'), 0) WHERE name = 'pending';
DELETE FROM tally WHERE name = 'claimed';
