-- The whole buffer. STRICT: no silent type changes. AUTOINCREMENT: ids are never reused, so a late answer cannot hit
-- another row. Keys grow with time: a random key in a unique index costs four times the writes (docs/figures.md).

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE source (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT    NOT NULL UNIQUE,
    first_read_at INTEGER,                      -- microseconds UTC, like every *_at; NULL: nothing could be read yet
    last_read_at  INTEGER NOT NULL,
    last_alert_at INTEGER,
    trouble       TEXT                          -- NULL: nothing is wrong
) STRICT;

CREATE TABLE cursor (
    source_id   INTEGER NOT NULL REFERENCES source (id),
    device      INTEGER NOT NULL,               -- u64 as its 64 bits, like inode and head_hash
    inode       INTEGER NOT NULL,
    head_hash   INTEGER NOT NULL,
    head_len    INTEGER NOT NULL CHECK (head_len BETWEEN 0 AND 256),
    offset      INTEGER NOT NULL CHECK (offset >= 0),
    backlog_end INTEGER NOT NULL CHECK (backlog_end >= 0),
    path        TEXT    NOT NULL,
    PRIMARY KEY (source_id, device, inode)
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
    crc           INTEGER NOT NULL
) STRICT;

-- What never changes of it.
CREATE TABLE alert_body (
    alert_id INTEGER PRIMARY KEY REFERENCES alert (id),
    body     TEXT    NOT NULL,                  -- JSON of model::Alert
    crc      INTEGER NOT NULL
) STRICT;

-- Fingerprint to alert, filled in runs (store/index.rs); the newest alerts are only in memory and found by id.
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
    failures          INTEGER NOT NULL DEFAULT 0,  -- in a row; 0 after a success
    unfinished        INTEGER NOT NULL DEFAULT 0 CHECK (unfinished IN (0, 1)),  -- the last sync had to leave some
    last_ok_at        INTEGER,
    last_error_at     INTEGER,
    last_error        TEXT
) STRICT;

CREATE TABLE route (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    destination_id    INTEGER NOT NULL REFERENCES destination (id),
    table_name TEXT    NOT NULL,
    UNIQUE (destination_id, table_name)
) STRICT;

-- A destination, or one table of it ('' is the whole destination), that waits.
CREATE TABLE hold (
    destination_id    INTEGER NOT NULL REFERENCES destination (id),
    table_name TEXT    NOT NULL,
    since_at   INTEGER NOT NULL,
    until_at   INTEGER NOT NULL,
    tries      INTEGER NOT NULL CHECK (tries > 0),
    told       INTEGER NOT NULL CHECK (told IN (0, 1)),  -- until_at is the other side's word
    reason     TEXT    NOT NULL,
    remedy     TEXT    NOT NULL,
    PRIMARY KEY (destination_id, table_name)
) STRICT, WITHOUT ROWID;

CREATE TABLE ticket (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    alert_id     INTEGER NOT NULL REFERENCES alert (id),
    route_id     INTEGER NOT NULL REFERENCES route (id),
    generation   INTEGER NOT NULL CHECK (generation >= 0),
    state        TEXT    NOT NULL CHECK (state IN ('opening', 'open', 'closed', 'withdrawn')),
    rule         TEXT    NOT NULL,
    sys_id       TEXT,
    number       TEXT,
    remote_state TEXT,
    opened_at    INTEGER,
    crc          INTEGER NOT NULL,
    CHECK ((state IN ('open', 'closed')) = (sys_id IS NOT NULL)),
    CHECK ((sys_id IS NULL) = (opened_at IS NULL)),
    UNIQUE (alert_id, route_id, generation)
) STRICT;

-- Promise 2: one live ticket per alert (= fingerprint), destination and table.
CREATE UNIQUE INDEX ticket_live ON ticket (alert_id, route_id) WHERE state IN ('opening', 'open');

-- The outbox.
CREATE TABLE delivery (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    payload    TEXT    NOT NULL CHECK (payload IN ('open-ticket')),
    ticket_id  INTEGER NOT NULL REFERENCES ticket (id),
    destination_id    INTEGER NOT NULL REFERENCES destination (id),
    route_id   INTEGER NOT NULL REFERENCES route (id),  -- the ticket's, so that a held table costs the others nothing
    state      TEXT    NOT NULL
               CHECK (state IN ('pending', 'claimed', 'delivered', 'dead', 'dropped', 'withdrawn')),
    severity   INTEGER NOT NULL CHECK (severity BETWEEN 0 AND 3),
    created_at INTEGER NOT NULL,
    due_at     INTEGER NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    doubtful   INTEGER NOT NULL DEFAULT 0 CHECK (doubtful IN (0, 1)),
    settled_at INTEGER,
    reason     TEXT,                            -- the other side's words, of the last failure
    crc        INTEGER NOT NULL,
    CHECK ((state IN ('delivered', 'dead', 'dropped', 'withdrawn')) = (settled_at IS NOT NULL))
) STRICT;

CREATE INDEX delivery_due ON delivery (route_id, severity DESC, id) WHERE state = 'pending';
CREATE INDEX delivery_tried ON delivery (destination_id, due_at) WHERE state = 'pending' AND attempts > 0;
CREATE INDEX delivery_claimed ON delivery (id) WHERE state = 'claimed';
CREATE INDEX delivery_dead ON delivery (id) WHERE state = 'dead';
CREATE INDEX delivery_of_ticket ON delivery (ticket_id);

-- Every send has an outcome row.
CREATE TABLE attempt (
    delivery_id INTEGER NOT NULL REFERENCES delivery (id),
    n           INTEGER NOT NULL CHECK (n > 0),
    started_at  INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    outcome     TEXT    NOT NULL,
    status      INTEGER,
    message     TEXT,
    PRIMARY KEY (delivery_id, n)
) STRICT, WITHOUT ROWID;

-- Counters by scope ('source:eve', 'destination:prod') and name, so that nothing has to be counted over a large table.
CREATE TABLE tally (
    scope TEXT    NOT NULL,
    name  TEXT    NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
) STRICT, WITHOUT ROWID;

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
CREATE TABLE notice (
    subject  TEXT PRIMARY KEY,
    text     TEXT    NOT NULL,
    remedy   TEXT    NOT NULL,
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    count    INTEGER NOT NULL CHECK (count > 0)
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
