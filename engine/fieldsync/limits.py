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
CHUNK_CELLS_FIRST = 2_000  # the first of a stream is that small, each next one twice as large
PART_BYTES_MIN = 1 << 10  # of a part of a chunk's body, in which more than that travels
PART_SHARE = 64  # or a part is as large as one in so many of the bytes that the session has sent
PART_BYTES_MAX = 64 << 10
BEGUN_CHUNKS_MAX = 16  # chunks that cut links broke off, each of up to FRAME_BYTES_MAX, kept; then the oldest go
CHUNK_BYTES_TARGET = 2 << 20  # or with the change that passes this many bytes of packed records read
CHUNK_CHANGES_MAX = 20_000
FETCH_ROWS_TARGET = 1_000  # records that a giver reads at a time
CHUNK_PIECES_MAX = 100_000
CHUNK_RAW_BYTES_MAX = 64 << 20  # of all streams, decompressed
STREAM_COMPRESS_BYTES_MIN = 64  # shorter streams travel as they are

# Frames and sessions
FRAME_BYTES_MAX = 16 << 20
HELLO_SCOPES_MAX = 100_000
CONTEXT_BYTES_MAX = 8 << 20
PROVISIONAL_GROUPS_MAX = 16  # givers whose dots a declaration names; dots of others are taken again
EAGER_SCOPES_MAX = 16  # scopes whose changes go along with a greeting
EAGER_CELLS_MAX = 500  # of one scope; more wait for the answer
PAIRS_MAX = 10_000  # pairs of replicas that a file remembers; then those that met longest ago go
PAIR_BYTES_MAX = 64 << 10  # of the names of its scopes
ROUNDS_MAX = 4  # over one scope: the usual one; after a look at the own file; comparing all; bringing back what went
MENDED_MAX = 16  # scopes that one session mends; the others wait for the next
LOOK_PAUSE_MS = 600_000  # a scope that was looked at for damage is not looked at again, whatever peers say
SESSION_SECONDS_MAX = 24 * 3600
CONNECT_SECONDS_MAX = 30
IDLE_SECONDS_MAX = 60
SERVER_SESSIONS_MAX = 64

# Storage
BUSY_MS_MAX = 30_000  # how long a transaction waits for another process's
READERS_MAX = 8  # idle reader connections kept

SCAN_ROWS_TARGET = 1_000  # rows read at a time where all of a scope is looked at
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
MOVED_BYTES_MAX = CHANGE_BYTES_MAX // 2  # of what is carried, with what its counters come to, and of its removal
MOVED_INCARNATIONS_MAX = 10  # of one record: as many records as one change may have then fit
MOVED_UPDATES_MAX = 1_000  # of one text: each takes a change of its own
DOT_BYTES_MAX = 16  # of a dot that a moved cell names as seen, in the numbers of a file
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

# Queries
IN_VALUES_MAX = 1_000  # values of one __in
TERMS_MAX = 30  # conditions of one query; with IN_VALUES_MAX below SQLite's 32,766 bound values
ROWS_MAX = (1 << 63) - 1  # what limit and offset can say

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
