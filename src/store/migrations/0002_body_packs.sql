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
--   fingerprint  can be made anew from alert: delete its rows and meta 'indexed_to', and the next start reads them
--                from the alerts. A row whose alert is gone is harmless.
CREATE TABLE body_pack (
    first_id INTEGER PRIMARY KEY,               -- the first alert of it
    last_id  INTEGER NOT NULL CHECK (last_id >= first_id),
    unpacked INTEGER NOT NULL CHECK (unpacked BETWEEN 1 AND 1048576),  -- bytes
    crc      INTEGER NOT NULL,
    bodies   BLOB    NOT NULL                   -- an LZ4 block; store/body.rs has what is in it
) STRICT;
