-- What healing a damaged database needs to know before it is damaged. Small and instant, but for three counts.

-- `OTRL`: a file that is not ours is told from a damaged one of ours.
PRAGMA application_id = 1330926156;

-- The schema's version once more: a flipped bit in the header does not make a database of a newer version. Every later
-- migration has to end with its own number.
INSERT INTO meta (key, value) VALUES ('schema', '3');
-- Which database this is: a WAL of another one carries another id.
INSERT INTO meta (key, value) VALUES ('id', lower(hex(randomblob(16))));

-- CRC-32C over the row; NULL in rows of earlier versions, which are not checked.
ALTER TABLE cursor ADD COLUMN crc INTEGER;

-- How many rows there are, so that a loss can be counted when the rows cannot be read any more.
INSERT INTO tally (scope, name, value) SELECT 'store', 'alerts', count(*) FROM alert;
INSERT INTO tally (scope, name, value) SELECT 'store', 'tickets', count(*) FROM ticket;
INSERT INTO tally (scope, name, value) SELECT 'store', 'deliveries', count(*) FROM delivery;

-- Each time a database was found damaged and made anew.
CREATE TABLE heal (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    kept_as TEXT    NOT NULL,                   -- file name of the damaged database in the state directory
    cause   TEXT    NOT NULL,
    counts  TEXT    NOT NULL,                   -- JSON: {"alert": {"salvaged": 10, "lost": 2}, …}
    rewound INTEGER NOT NULL CHECK (rewound IN (0, 1)),  -- the cursors were given up: files are read again
    told    INTEGER NOT NULL DEFAULT 0 CHECK (told IN (0, 1))  -- the alert about it went through the rules
) STRICT;
