-- The whole buffer. STRICT: no silent type changes. AUTOINCREMENT: ids are never reused, so a late answer cannot hit
-- another row. Keys grow with time: a random key in a unique index costs four times the writes (docs/figures.md).
-- A CHECK of three words and more is a chain of OR: SQLite makes a tree of a list for each row that is written.
-- What is done with each table (checksum, salvage, repair) stands in store/catalog.rs.

-- `OTRL`: a file that is not ours is told from a damaged one of ours.
PRAGMA application_id = 1330926156;

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The schema's version once more: a flipped bit in the header does not make a database of a newer version. Every later
-- migration has to end with its own number.
INSERT INTO meta (key, value) VALUES ('schema', '1');
-- Which database this is: a WAL of another one carries another id.
INSERT INTO meta (key, value) VALUES ('id', lower(hex(randomblob(16))));

CREATE TABLE source (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT    NOT NULL UNIQUE,
    first_read_at INTEGER,                      -- microseconds UTC, like every *_at; NULL: nothing could be read yet
    last_read_at  INTEGER NOT NULL,
    last_alert_at INTEGER,
    trouble       TEXT,                         -- NULL: nothing is wrong
    kind          TEXT    NOT NULL DEFAULT ''   -- as in the config
) STRICT;

CREATE TABLE cursor (
    source_id   INTEGER NOT NULL REFERENCES source (id),
    device      INTEGER NOT NULL,               -- u64 as its 64 bits, like inode and head_hash
    inode       INTEGER NOT NULL,
    head_hash   INTEGER NOT NULL,
    head_len    INTEGER NOT NULL CHECK (head_len BETWEEN 0 AND 256),
    offset      INTEGER NOT NULL CHECK (offset >= 0),
    backlog_end INTEGER NOT NULL CHECK (backlog_end >= 0),
    complete    INTEGER NOT NULL CHECK (complete IN (0, 1)),
    path        TEXT    NOT NULL,
    state       TEXT,                           -- what the decoder has learnt up to offset; NULL: nothing
    proofs      TEXT    NOT NULL,               -- what stood before offset and before earlier places, as hashes
    crc         INTEGER NOT NULL,               -- CRC-32C over the row, as in every table that has one
    PRIMARY KEY (source_id, device, inode)
) STRICT, WITHOUT ROWID;

-- How far a source that is no file was read: watermarks, sequence numbers, positions.
CREATE TABLE mark (
    source_id INTEGER NOT NULL REFERENCES source (id),
    name      TEXT    NOT NULL,                 -- the source's own
    value     TEXT    NOT NULL,
    crc       INTEGER NOT NULL,
    PRIMARY KEY (source_id, name)
) STRICT, WITHOUT ROWID;

-- One row for each finding, whatever the number of its sightings. Small, because every repeat rewrites it.
CREATE TABLE alert (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    fingerprint   BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    source_id     INTEGER NOT NULL REFERENCES source (id),
    severity      INTEGER NOT NULL CHECK (severity BETWEEN 0 AND 3),
    first_seen_at INTEGER NOT NULL,             -- by the sensor's clock
    last_seen_at  INTEGER NOT NULL,
    recorded_at   INTEGER NOT NULL,             -- by this machine's clock
    occurrences   INTEGER NOT NULL CHECK (occurrences > 0),
    crc           INTEGER NOT NULL,
    cleared_at    INTEGER,                      -- by this machine's clock; NULL: it stands. Not in crc
    -- The one ticket that it waits for and that is not written out yet (store/op/plan.rs); NULL, all four: there is none.
    -- No foreign keys: each would be looked up for each alert of a burst, and what leads nowhere goes through the rules again.
    route_id      INTEGER,                      -- where to
    rule_id       INTEGER,                      -- the rule that gives the fields
    turn          INTEGER,                      -- order within table and severity (store/turns.rs); not in crc
    planned_id    INTEGER                       -- number of the ticket and of its delivery, both kept free for it
) STRICT;

-- The planned ones, in the order of the outbox.
CREATE INDEX alert_planned ON alert (route_id, severity DESC, turn, planned_id) WHERE route_id IS NOT NULL;

-- Names of rules, for what is planned.
CREATE TABLE rule (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT    NOT NULL UNIQUE
) STRICT;

-- What never changes of alerts, packed: the bodies of one transaction and one severity, compressed together. As a row each
-- they cost a page each, written twice (docs/figures.md). No foreign key leads to or from it: a pack without alerts is
-- harmless, an alert without a pack is shown and claimed as damaged. The ids of a pack are consecutive.
CREATE TABLE body_pack (
    first_id INTEGER PRIMARY KEY,               -- the first alert of it
    last_id  INTEGER NOT NULL CHECK (last_id >= first_id),
    unpacked INTEGER NOT NULL CHECK (unpacked BETWEEN 1 AND 1048576),  -- bytes
    crc      INTEGER NOT NULL,
    bodies   BLOB    NOT NULL                   -- store/coding.rs; store/body.rs has what is in it
) STRICT;

-- Fingerprint to alert, filled in runs (store/index.rs); the newest alerts are only in memory and found by id. It can be
-- made anew from the alerts; a row whose alert is gone is harmless.
CREATE TABLE fingerprint (
    prefix   INTEGER NOT NULL,                  -- first eight bytes of the fingerprint
    alert_id INTEGER NOT NULL,
    PRIMARY KEY (prefix, alert_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE destination (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    name              TEXT    NOT NULL UNIQUE,
    window_started_at INTEGER NOT NULL DEFAULT 0,  -- of the hourly budget
    window_used       INTEGER NOT NULL DEFAULT 0,
    looked_until      INTEGER NOT NULL DEFAULT 0,  -- the ticket up to which those seen again were looked at; 0: all of them
    failures          INTEGER NOT NULL DEFAULT 0,  -- in a row; 0 after a success
    unfinished        INTEGER NOT NULL DEFAULT 0 CHECK (unfinished IN (0, 1)),  -- the last sync had to leave some
    last_ok_at        INTEGER,
    last_error_at     INTEGER,
    last_error        TEXT
) STRICT;

CREATE TABLE route (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    destination_id INTEGER NOT NULL REFERENCES destination (id),
    table_name     TEXT    NOT NULL,
    keeps_sys_id         INTEGER CHECK (keeps_sys_id = 0 OR keeps_sys_id = 1),  -- NULL: not learned yet
    keeps_correlation_id INTEGER CHECK (keeps_correlation_id = 0 OR keeps_correlation_id = 1),
    read_until     INTEGER,                     -- how far its tickets were read back, by the server's clock
    read_behind    TEXT,                        -- of that very time, up to this record; NULL: there was no more
    read_at        INTEGER,                     -- when there was no more, by this machine's
    swept          INTEGER,                     -- up to which ticket it was looked whether they are still there; NULL: all
    UNIQUE (destination_id, table_name)
) STRICT;

-- A destination, or one table of it ('' is the whole destination), that waits.
CREATE TABLE hold (
    destination_id INTEGER NOT NULL REFERENCES destination (id),
    table_name     TEXT    NOT NULL,
    since_at       INTEGER NOT NULL,
    until_at       INTEGER NOT NULL,
    tries          INTEGER NOT NULL CHECK (tries > 0),
    told           INTEGER NOT NULL CHECK (told IN (0, 1)),  -- until_at is the other side's word
    reason         TEXT    NOT NULL,
    remedy         TEXT    NOT NULL,
    PRIMARY KEY (destination_id, table_name)
) STRICT, WITHOUT ROWID;

CREATE TABLE ticket (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    alert_id     INTEGER NOT NULL REFERENCES alert (id),
    route_id     INTEGER NOT NULL REFERENCES route (id),
    generation   INTEGER NOT NULL CHECK (generation >= 0),
    state        TEXT    NOT NULL
                 CHECK (state = 'opening' OR state = 'open' OR state = 'resolved' OR state = 'closed'
                        OR state = 'deleted' OR state = 'folded' OR state = 'withdrawn'),
    rule         TEXT    NOT NULL,
    sys_id       TEXT,
    number       TEXT,
    remote_state TEXT,
    opened_at    INTEGER,
    crc          INTEGER NOT NULL,
    -- Its later life; nothing of it is in crc.
    noted_at     INTEGER,                       -- when it was last told how often its finding was seen
    told         INTEGER,                       -- how often that was
    worst        INTEGER,                       -- what the severity rose to; NULL: it did not
    note_due_at  INTEGER,                       -- there is something to note, not before then; NULL: there is not
    seen_at      INTEGER,                       -- seen since it was last looked at there, at the latest within a minute
    mod_count    INTEGER,                       -- its sys_mod_count after our last look
    assigned_to  TEXT,                          -- display name
    close_notes  TEXT,
    parent_id    INTEGER,                       -- of a folded one: the ticket that stands for it
    beside_id    INTEGER,                       -- of one that a person ordered: the ticket beside which it is made
    adopted      TEXT,                          -- what is strange about a record that was found; NULL: nothing
    CHECK (state = 'opening' OR (state = 'open' OR state = 'resolved' OR state = 'closed' OR state = 'deleted')
           = (sys_id IS NOT NULL)),
    CHECK ((sys_id IS NULL) = (opened_at IS NULL)),
    CHECK ((state = 'folded') = (parent_id IS NOT NULL)),
    UNIQUE (alert_id, route_id, generation)
) STRICT;

-- Both are small: what was seen again, and what is to be noted.
CREATE INDEX ticket_seen ON ticket (route_id) WHERE seen_at IS NOT NULL;
CREATE INDEX ticket_noted ON ticket (route_id, note_due_at) WHERE note_due_at IS NOT NULL;
CREATE INDEX ticket_folded ON ticket (parent_id) WHERE parent_id IS NOT NULL;

-- Promise 2: one live ticket per alert (= fingerprint), destination and table. An index that held it would be written at
-- each opening and each settling; the unique key of the table answers the same question.
CREATE TRIGGER ticket_live_insert BEFORE INSERT ON ticket
WHEN (new.state = 'opening' OR new.state = 'open') AND EXISTS (
    SELECT 1 FROM ticket WHERE alert_id = new.alert_id AND route_id = new.route_id AND state IN ('opening', 'open'))
BEGIN
    SELECT raise(ABORT, 'a second live ticket');
END;

CREATE TRIGGER ticket_live_update BEFORE UPDATE OF alert_id, route_id, state ON ticket
WHEN (new.state = 'opening' OR new.state = 'open') AND EXISTS (
    SELECT 1 FROM ticket WHERE alert_id = new.alert_id AND route_id = new.route_id AND state IN ('opening', 'open')
       AND id <> new.id)
BEGIN
    SELECT raise(ABORT, 'a second live ticket');
END;

-- What is put into a table of the other side by itself, such as an event: found there again by its key.
CREATE TABLE record (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    alert_id INTEGER NOT NULL REFERENCES alert (id),
    route_id INTEGER NOT NULL REFERENCES route (id),
    rule     TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    state    TEXT    NOT NULL CHECK (state = 'opening' OR state = 'open' OR state = 'withdrawn'),
    crc      INTEGER NOT NULL,
    UNIQUE (alert_id, route_id)
) STRICT;

-- One row for each device, whatever the number of sources that see it.
CREATE TABLE device (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    key         TEXT    NOT NULL UNIQUE,        -- what it is called there, with the agent's id before it; never changes
    view        BLOB    NOT NULL,               -- JSON: device::merge::View
    hash        BLOB    NOT NULL,               -- a digest of each part of the view (device/diff.rs)
    told        BLOB,                           -- the same as it was last told; NULL: never
    told_at     INTEGER,
    told_to     INTEGER REFERENCES destination (id),
    sys_id      TEXT,                           -- its CI
    class       TEXT,
    changed     INTEGER NOT NULL CHECK (changed IN (0, 1)),  -- told is not hash, and no delivery waits for it
    changed_at  INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL,
    merged_into INTEGER,                        -- it turned out to be that one
    crc         INTEGER NOT NULL
) STRICT;

CREATE INDEX device_changed ON device (id) WHERE changed = 1;

-- What each source says of it.
CREATE TABLE device_source (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    device_id INTEGER NOT NULL REFERENCES device (id),
    source_id INTEGER NOT NULL REFERENCES source (id),
    key       TEXT    NOT NULL,                 -- by what the source knows it
    said      BLOB    NOT NULL,                 -- JSON: model::Device
    at        INTEGER NOT NULL,
    crc       INTEGER NOT NULL,
    UNIQUE (source_id, key)
) STRICT;

CREATE INDEX device_source_of ON device_source (device_id);

-- By what a device is known again. A row that is no longer so is harmless: it is looked at beside the view.
CREATE TABLE device_key (
    id        INTEGER PRIMARY KEY,
    value     TEXT    NOT NULL,
    device_id INTEGER NOT NULL REFERENCES device (id),
    UNIQUE (value, device_id)
) STRICT;

CREATE INDEX device_key_of ON device_key (device_id);

-- Open tickets that name no CI, because none of the devices that they may be about had one: by which of its keys one is
-- looked for.
CREATE TABLE unlinked (
    id        INTEGER PRIMARY KEY,
    value     TEXT    NOT NULL,                 -- as in device_key
    ticket_id INTEGER NOT NULL REFERENCES ticket (id),
    UNIQUE (ticket_id, value)
) STRICT;

-- The outbox.
CREATE TABLE delivery (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    kind           TEXT    NOT NULL,               -- model::DeliveryKind
    ticket_id      INTEGER REFERENCES ticket (id), -- the subject: one of these three
    device_id      INTEGER,
    record_id      INTEGER REFERENCES record (id),
    seq            INTEGER NOT NULL CHECK (seq > 0),  -- order within the subject
    destination_id INTEGER NOT NULL REFERENCES destination (id),
    route_id       INTEGER NOT NULL REFERENCES route (id),  -- so that a held table costs the others nothing
    state          TEXT    NOT NULL
                   CHECK (state = 'pending' OR state = 'claimed' OR state = 'delivered' OR state = 'dead'
                          OR state = 'dropped' OR state = 'withdrawn'),
    severity       INTEGER NOT NULL CHECK (severity BETWEEN 0 AND 3),
    turn           INTEGER NOT NULL DEFAULT 0,     -- order within table and severity (store/turns.rs); not in crc
    created_at     INTEGER NOT NULL,
    due_at         INTEGER NOT NULL,
    attempts       INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    doubtful       INTEGER NOT NULL DEFAULT 0 CHECK (doubtful IN (0, 1)),
    settled_at     INTEGER,
    reason         TEXT,                           -- the other side's words, of the last failure
    crc            INTEGER NOT NULL,
    CHECK ((ticket_id IS NOT NULL) + (device_id IS NOT NULL) + (record_id IS NOT NULL) = 1),
    CHECK ((state = 'pending' OR state = 'claimed') = (settled_at IS NULL))
) STRICT;

CREATE INDEX delivery_due ON delivery (route_id, severity DESC, turn, id) WHERE state = 'pending';
CREATE INDEX delivery_tried ON delivery (destination_id, due_at) WHERE state = 'pending' AND attempts > 0;
CREATE INDEX delivery_claimed ON delivery (id) WHERE state = 'claimed';
CREATE INDEX delivery_dead ON delivery (id) WHERE state = 'dead';
CREATE UNIQUE INDEX delivery_of_ticket ON delivery (ticket_id, seq) WHERE ticket_id IS NOT NULL;
CREATE UNIQUE INDEX delivery_of_device ON delivery (device_id, seq) WHERE device_id IS NOT NULL;
CREATE UNIQUE INDEX delivery_of_record ON delivery (record_id, seq) WHERE record_id IS NOT NULL;

-- Every send has an outcome row. Rows are appended: a key of the two numbers without a rowid rewrote four pages for each
-- it filled.
CREATE TABLE outcome (
    id          INTEGER PRIMARY KEY,            -- delivery_id * 32 + n % 32; fewer than 32 are kept
    n           INTEGER NOT NULL CHECK (n > 0),
    started_at  INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    outcome     TEXT    NOT NULL,
    status      INTEGER,
    message     TEXT
) STRICT;

-- Numbers are kept free for what is planned before the first row is there.
INSERT INTO sqlite_sequence (name, seq) VALUES ('ticket', 0), ('delivery', 0);

-- By scope ('source:eve', 'destination:prod') and name, so that nothing has to be counted over a large table. What is
-- claimed counts as pending, and is told apart by the few rows that are claimed: a claim then moves no counter.
CREATE TABLE counter (
    scope TEXT    NOT NULL,
    name  TEXT    NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
) STRICT, WITHOUT ROWID;

-- How many rows there are, so that a loss can be counted when the rows cannot be read any more.
INSERT INTO counter (scope, name, value) VALUES ('store', 'alerts', 0), ('store', 'tickets', 0), ('store', 'deliveries', 0), ('store', 'devices', 0), ('store', 'records', 0);

-- Recent samples of what was not forwarded, and of what could not be read; rings, bounded by their writers.
CREATE TABLE filtered_sample (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    source_id INTEGER NOT NULL REFERENCES source (id),
    at        INTEGER NOT NULL,
    reason    TEXT    NOT NULL,
    severity  INTEGER NOT NULL,
    engine    TEXT    NOT NULL,
    protocol  TEXT    NOT NULL,
    title     TEXT    NOT NULL,
    parties   TEXT    NOT NULL
) STRICT;

CREATE TABLE reject_sample (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    source_id INTEGER NOT NULL REFERENCES source (id),
    at        INTEGER NOT NULL,
    reason    TEXT    NOT NULL,
    detail    TEXT    NOT NULL,
    sample    TEXT    NOT NULL
) STRICT;

-- What a person should know; one row a subject, however often it happens.
CREATE TABLE health_issue (
    code     TEXT    NOT NULL,                  -- stable words: `dropped-field`
    subject  TEXT    NOT NULL,                  -- what it is about: `prod:incident:assignment_group`
    text     TEXT    NOT NULL,
    remedy   TEXT    NOT NULL,
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    count    INTEGER NOT NULL CHECK (count > 0),
    PRIMARY KEY (code, subject)
) STRICT, WITHOUT ROWID;

CREATE TABLE sync (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER NOT NULL,
    cause      TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    found      INTEGER NOT NULL,
    again      INTEGER NOT NULL,
    dead       INTEGER NOT NULL
) STRICT;

-- The counters at the beginning of half hours and days, for charts; two rings.
CREATE TABLE history (
    ring   TEXT    NOT NULL,                    -- `half-hour` or `day`
    slot   INTEGER NOT NULL,                    -- half hours or days since 1970, UTC
    counts TEXT    NOT NULL,                    -- JSON: {"severity": {"minor": 10}, …}
    PRIMARY KEY (ring, slot)
) STRICT, WITHOUT ROWID;

-- Each time a database was found damaged and made anew.
CREATE TABLE repair (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    kept_as TEXT    NOT NULL,                   -- file name of the damaged database in the state directory
    cause   TEXT    NOT NULL,
    counts  TEXT    NOT NULL,                   -- JSON: {"alert": {"salvaged": 10, "lost": 2}, …}
    rewound INTEGER NOT NULL CHECK (rewound IN (0, 1)),  -- the cursors were given up: files are read again
    told    INTEGER NOT NULL DEFAULT 0 CHECK (told IN (0, 1))  -- the alert about it went through the rules
) STRICT;
