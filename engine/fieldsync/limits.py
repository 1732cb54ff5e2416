"""Every bound of the engine, with units. What would pass one is refused with a clear error; nothing is cut short."""

# Names and values
KEY_BYTES_MAX = 512
SCOPE_NAME_BYTES_MAX = 256
FIELD_NAME_BYTES_MAX = 128
COLLECTION_NAME_BYTES_MAX = 128
FIELDS_MAX = 65_535  # distinct (name, kind) pairs in one file
VALUE_DEPTH_MAX = 32  # lists and dicts inside each other, the outermost included

# A change: what one transaction writes, or removes, in one scope
CHANGE_RECORDS_MAX = 1_000
CHANGE_BYTES_MAX = 1 << 20
CHANGE_INCARNATIONS_MAX = 10_000  # a record has more than one where devices created its key apart
SEQ_MAX = (1 << 63) - 2

# Clocks
DRIFT_MS_MAX = 5 * 60 * 1_000  # a stamp further ahead than this does not move the local clock
TIME_MAX = (1 << 63) - 1

# A chunk of a stream
CHUNK_CELLS_TARGET = 50_000  # a chunk ends with the change that passes this
CHUNK_CELLS_FIRST = 10_000  # the first of a stream is that small, each next one twice as large
PART_BYTES_MIN = 1 << 10  # of a part of a chunk's body, in which more than that travels
PART_SHARE = 64  # or a part is as large as one in so many of the bytes that the session has sent
PART_BYTES_MAX = 64 << 10
BEGUN_CHUNKS_MAX = 16  # chunks that cut links broke off, each of up to FRAME_BYTES_MAX, kept; then the oldest go
CHUNK_BYTES_TARGET = 2 << 20  # or with the change that passes this many bytes of packed records read
CHUNK_CHANGES_MAX = 20_000
FETCH_ROWS_FIRST = 1_000  # records that a giver reads at a time, before it knows how large they are, and at least
FETCH_ROWS_MAX = 20_000
FETCH_BYTES_TARGET = 4 << 20  # as many as come to about this, by the last ones
CHUNK_PIECES_MAX = 100_000
CHUNK_RAW_BYTES_MAX = 64 << 20  # of all streams, decompressed
STREAM_COMPRESS_BYTES_MIN = 64  # shorter streams travel as they are

# Frames and sessions
FRAME_BYTES_MAX = 16 << 20
HELLO_SCOPES_MAX = 100_000
SCOPES_EMPTY_MAX = 10_000  # without a record, that a hub holds; then it enters no more for who just names them
CONTEXT_BYTES_MAX = 8 << 20
CLAIMED_BYTES_MAX = CONTEXT_BYTES_MAX // 2  # up to which devices may make a context grow
CLAIMED_GAPS_MAX = 100  # in what one says that it wrote itself: only damage makes any
REASON_CHARS_MAX = 100  # of the code of a refusal
PROVISIONAL_GROUPS_MAX = 16  # givers whose dots a declaration names; dots of others are taken again
EAGER_SCOPES_MAX = 16  # scopes whose changes go along with a greeting
EAGER_CELLS_MAX = 500  # of one scope; more wait for the answer
PAIRS_MAX = 10_000  # pairs of replicas that a file remembers; then those that met longest ago go
PAIRS_OF_DEVICE_MAX = 4  # of these, with one device that proves who it is
PAIR_BYTES_MAX = 64 << 10  # of the names of its scopes
ROUNDS_MAX = 4  # over one scope: the usual one; after a look at the own file; comparing all; bringing back what went
MENDED_MAX = 16  # scopes that one session mends; the others wait for the next
LOOK_PAUSE_MS = 600_000  # a scope that was looked at for damage is not looked at again, whatever peers say
SESSION_SECONDS_MAX = 24 * 3600
TURN_ASK_SECONDS = 1.0  # after which a sync that found a scope taken begins again
TURN_QUIET_MS = 10_000  # after which who says nothing any more no longer keeps others from a scope that he streams into
TURN_MS_MAX = 20_000  # nor does anybody for longer

# Networks
CONNECT_SECONDS_MAX = 30
CLOSE_SECONDS_MAX = 5
IDLE_SECONDS_MAX = 60  # without a frame either way within a session; between sessions pings keep a connection
PING_SECONDS = 20  # between pings, and how long an answer may take
QUIET_SECONDS = 10.0  # after which a peer that has something to answer is asked whether it is there
QUIET_BYTES_MAX = 64 << 10  # that were sent it since it said something; with more, it may be at work for longer
UNTAKEN_BYTES_MAX = 4 * QUIET_BYTES_MAX  # that have come over a connection and wait; then no more is read, nor a ping
FRAME_COST_BYTES = 128  # that a frame takes in a buffer besides what it holds
PONGS_BYTES_MAX = 256 << 10  # of answers to pings that a peer does not read; then the connection is cut
SERVER_CONNECTIONS_MAX = 2_000
SERVER_SESSIONS_MAX = 64  # of these, in the middle of a session; others wait
WARNINGS_BURST = 20  # lines of one kind that a port logs at once of who fails there
WARNINGS_PAUSE_SECONDS = 10.0  # and then one in so long
HANDSHAKES_MAX = 500  # connections that are not through those of TLS and WebSocket; then the oldest goes
UNREAD_BYTES_MAX = 256 << 20  # that have come over all connections and are not taken; then who holds the most goes
SESSION_WAIT_SECONDS = 20.0  # for one of these places
WORKERS_MAX = 8  # threads in which an agent or a server works at its file
NEWS_SCOPES_MAX = 10_000  # scopes that changed, noted by name; of more, all are looked at
DIALLING_MAX = 4  # connections that an agent makes at a time
PEERS_MAX = 256  # that an agent knows of; more that are announced are not looked at
RETRY_FIRST_SECONDS = 1.0  # at most, before a dial after one failure; twice as long after each next one
RETRY_SECONDS_MAX = 60.0
REFRESH_SECONDS = 900.0  # between sessions over a link on which nothing happens
SESSIONS_APART_SECONDS = 0.05  # at least, between sessions with one peer
CROWDED_SECONDS_MAX = 8.0  # between those that others with the same scope get in the way of
PROBE_SECONDS = 5.0  # for an answer, after a sleep or a change of networks
STANDBY_SECONDS = 2.0  # between looks whether another agent still works at the same file
BUDGET_SECONDS = 5.0  # at least, between writing down what is used of a budget
TICK_SECONDS = 5.0  # between looks at the clocks and the networks
ADDRESSES_MAX = 8  # of one device that are tried
RESOLVE_MS_MAX = 3_000  # for what a device announced of itself
HEALTHY_SECONDS = 5.0  # within which a server that is well answers
TIDY_SECONDS = 600.0  # between looks whether there is something to trim
GRACE_SECONDS = 10.0  # for open sessions to end in, when a server is stopped
SESSIONS_BURST = 30  # sessions that one connection may begin at once; then
SESSIONS_PAUSE_SECONDS = 0.2  # passes before each next one

# Identities
IDENTITY_NAME_CHARS_MAX = 64  # of an organisation, a hub or a device
CERTIFICATE_BYTES_MAX = 4 << 10
ROOT_YEARS = 50  # how long certificates are valid: of a root and its issuers,
HUB_YEARS = 25
DEVICE_YEARS = 10  # renewed by sync long before
STATEMENT_BYTES_MAX = 32 << 10
GRANT_DAYS = 400  # how long a grant is good without meeting a hub, unless it says otherwise
ROLL_LOOK_MS = 1_000  # between looks, in a session, at what other processes were told of who is out
MINTED_MAX = 10_000  # names minted since the last transaction that may turn out to be authors
INVITE_ADDRESS_BYTES_MAX = 200
ENROLMENTS_MAX = 16  # at once
ENROLMENT_SECONDS_MAX = 20
REFUSED_RECORDS_MAX = 1_000  # records named of refused changes, in each scope
SEALED_READERS_MAX = 10_000  # to whom one bundle is sealed
PATTERNS_MAX = 1_000  # scopes, or patterns of them, that one statement names

# Storage
DECLARATIONS_SERVED = 3  # a column that none of the last so many declarations for which tables were made asks for, goes
MISFITS_NAMED = 5  # keys of records that a description names where a value cannot be shown
COLUMNS_MAX = 1_000  # of a table; those that only former declarations asked for go first
BUSY_MS_MAX = 30_000  # how long a transaction waits for another process's
READERS_MAX = 8  # idle reader connections kept
LOG_PAGES_FIRST = 4_000  # of the write-ahead log, with which a thread begins to move them into the file
LOG_PAGES_STEP = 2_000  # more, with which it begins anew while the log did not start over
LOG_PAGES_MAX = 8_000  # with which a commit waits for that; a transaction may still write more

ENTRIES_BYTES_A_CELL = 16  # of a change's entries in the index, for each of its cells that live; where they have more,
ENTRIES_BYTES_SPARE = 64  # and so much besides, rows without any are taken out of them
SCAN_ROWS_TARGET = 1_000  # rows read at a time where all of a scope is looked at
LATELY_BYTES_MAX = 2 << 20  # of edits that landed lately, remembered so that they are given without reading records
MERGE_RECORDS_MAX = 1_000  # merged at a time: some 2 ms, in which no other thread runs Python
DROPS_FREE_MAX = 1_000  # records that any peer may take away by having them no more
DROPS_SHARE_MAX = 0.5  # of the records of a scope, beyond that number; more wait for a hub
TRASH_ROWS_MAX = 100_000  # records kept that went because a peer had them no more; then the oldest go
TRASH_KEPT_MS = 90 * 86_400_000  # how long they are kept; then they go when the next ones come
REMOVALS_KEPT_MS = 30 * 86_400_000  # how long a hub keeps removals by itself
REMOVALS_KEPT_MAX = 100_000  # changes of removals a hub keeps in one scope, whatever their age
TRIM_PAUSE_MS = 3_600_000  # how often a hub trims by itself
FORWARDS_KEPT_MS = 365 * 86_400_000  # how long a hub follows a record that it moved with what comes late
FORWARDS_MAX = 1_000_000  # moves of records that it remembers; then the oldest go
MOVES_FOLLOWED_MAX = 100  # moves of one record, one after the other
LATE_ROUNDS_MAX = 16  # edits of one field, made apart, that follow a moved record in one transaction
MOVED_BYTES_MAX = CHANGE_BYTES_MAX // 2  # of what is carried, with what its counters come to, and of its removal
MOVED_INCARNATIONS_MAX = 10  # of one record: as many records as one change may have then fit
MOVED_UPDATES_MAX = 1_000  # of one text that cannot move as one: each takes a change of its own
DOT_BYTES_MAX = 16  # of a dot that a moved cell names as seen, in the numbers of a file
AUDIT_KEPT_MS = 365 * 86_400_000  # how long rows of an audit log are kept
AUDIT_ROWS_MAX = 10_000_000  # rows of an audit log, some 2 GB; then the oldest go
NOTES_MAX = 1_000  # notes outside their files by which copies are recognised; then the oldest go
FAULTS_KEPT = 1_000  # faults described by one look at a file; the others are counted
DAMAGE_MESSAGES_MAX = 100  # asked of SQLite

# Texts, lists and maps
TEXT_BYTES_MAX = CHANGE_BYTES_MAX // 2  # of one as a single update, so that a change can hold it anew
TEXT_SLACK_BYTES = 256  # of updates that are not merged anew, however many they are
TEXT_EDITS_TARGET = 500  # edits that pycrdt takes at once; more are merged afterwards
TEXT_FAULTS_MAX = 16  # updates of one that pycrdt stumbles over when they come together; then the rest is left out
TEXT_CACHE_COUNT_MAX = 256  # documents at hand, and as many values
TEXT_CACHE_BYTES_MAX = 8 << 20  # of their updates
TAIL_RECORD_BYTES = 4096  # packed; edits of texts in smaller records write the whole row
TAIL_PIECES_MAX = 1_000  # beside a row; then they are taken into it
TAILS_MAX = 8  # rows of a file with pieces beside them, and records at hand
LIVE_PAUSE_SECONDS = 1.0  # after the first edit of an editor that is not written yet: what a crash may cost

# Queries
IN_VALUES_MAX = 1_000  # values of one __in
TERMS_MAX = 30  # conditions of one query; with IN_VALUES_MAX below SQLite's 32,766 bound values
ROWS_MAX = (1 << 63) - 1  # what limit and offset can say
SEARCH_CHARS_MAX = 4_000  # of one search, as it is typed
SEARCHES_MAX = 10  # of one query
FOLLOWED_MAX = 100_000  # references that are followed at once
LOOKUPS_MAX = 10_000  # keys times scopes that are looked up one by one; for more, a collection's index is read through

# Loading rows
LOAD_BUFFER_ROWS_MAX = 50_000
LOAD_COMMIT_ROWS = 10_000
LOAD_SHAPES_MAX = 1_000  # sets of field names whose checks are remembered
REJECTED_ROWS_KEPT = 1_000  # rows whose reason is kept, of one load or reading; the others are counted

# Tables on disk
TABLE_COLUMNS_MAX = 1_000
ROW_CHARS_MAX = 1 << 20  # characters of one row, over all its lines
NUMBER_CHARS_MAX = 400  # characters of one number: the largest float written out, and some
ZIP_MEMBERS_MAX = 100  # members of a zip file, one of which is the table
SAMPLE_ROWS_MAX = 50_000  # rows sampled in search of a first value in every column
REMEMBERED_TEXTS_MAX = 65_536  # texts whose values are remembered, over all columns of one table
REMEMBERED_CHARS_MAX = 64  # characters of a text whose value is remembered

# Watches
WATCH_QUEUE_EVENTS_MAX = 256  # then events coalesce
WATCH_QUEUE_BYTES_MAX = 8 << 20  # of records at hand that wait to be told to one watch; then they are read again
WATCH_POLL_SECONDS = 0.25  # how soon commits of other processes are seen

# Reconciliation
SKETCH_SYMBOLS_MAX = 1 << 16  # of one sketch: 768 KiB, decodes some 48,000 differences
RANGE_QUESTION_BYTES_MAX = 512 << 10
RANGE_ANSWER_BYTES_MAX = 4 << 20
RANGE_ITEMS_TARGET = 48  # items of a range that differs are listed up to here; of more, fingerprints of its parts
RANGE_ITEMS_MAX = 65_535  # items listed of one range that was asked for whole
RANGE_FOUND_MAX = 4 << 20  # items that the answers list in all
RANGES_OPEN_MAX = 1 << 17  # ranges that are known to differ and not asked about yet
RANGE_ROUNDS_MAX = 1_000
