/*
 * insitu: columns in shared memory, computed where they lie.
 *
 * A region is memory that several processes map: shared memory with a name, a file, or memory
 * behind a descriptor. It holds named tables of Arrow columns. A program puts tables in, once, and
 * computes on them where they lie; results lie in the region too. Any other program, in C, Python
 * or Rust, has the same tables in microseconds, whatever their size.
 *
 *     InsituError error = {0};
 *     InsituRegion region;
 *     InsituTable flights, result;
 *     InsituPlan plan;
 *     if (insitu_region_open("market", 0, &region, &error) != INSITU_OK ||
 *         insitu_table_open(region, "flights", &flights, &error) != INSITU_OK ||
 *         insitu_plan_parse("sum(distance), len()", "air_time > 60", &plan, &error) != INSITU_OK ||
 *         insitu_query(flights, plan, NULL, &result, &error) != INSITU_OK) {
 *         fprintf(stderr, "%s\n", error.message);
 *         insitu_error_release(&error);
 *         return 1;
 *     }
 *
 * Compile and link with `cc program.c $(pkg-config --cflags --libs insitu)`. Linux only.
 *
 * Status. Functions return an InsituStatus: INSITU_OK, or what went wrong. (Those that tell
 * versions and insitu_error_release cannot fail.) The last argument is a struct of the caller's for
 * the message, or NULL; see InsituError. A call that fails has changed nothing, and has stored
 * nothing where results go, unless its description says otherwise. A defect of the library's own is
 * INSITU_INTERNAL.
 *
 * Handles. What the library makes is named by handles: small structs with a number, passed by value.
 * A handle is good until it is given to its `_release` function, once. A handle of zeros stands for
 * nothing; to release it does nothing. A handle that was released, is of another kind or was never
 * given out is a status (INSITU_STALE, INSITU_INVALID_ARGUMENT), also if it is used, by mistake, when
 * much else has been made since. Handles may be released in any order, also while another thread
 * uses them: what they stand for goes when nobody uses it any more.
 *
 * Pointers. A pointer to a result must not be NULL where its function does not say so. Texts are
 * UTF-8 and end with a zero byte; file names are bytes. The library keeps none of the caller's
 * pointers when a call has returned. Pointers that are NULL or not aligned are a status; that there
 * is what they should point to, nobody can check. A stream or schema that is filled is overwritten,
 * whatever was there: release what it held before.
 *
 * Structs that may grow begin with their size; the caller sets it to sizeof. A library of the same
 * INSITU_ABI_VERSION works with programs that were built for an older or a newer one.
 *
 * Threads. All functions may be called from any thread, at the same time, with the same handles.
 * (A handle is passed to another thread as any other value is, by what makes it seen there.) One
 * error struct, and one stream, are for one call at a time. An exclusive lease belongs to the thread
 * that took it. A call that computes much uses the engine's own threads beside the caller's;
 * a task cancels it. No function may be called from a signal handler.
 *
 * Forks. After fork(), the child's handles are its own: they work, and are released, apart from the
 * parent's. Exclusive leases are not inherited. What another thread was using at the fork stays with
 * the child until it ends.
 */

#ifndef INSITU_H
#define INSITU_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Arrow's C data and stream interfaces, for who does not have them from elsewhere. */
#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE

#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE 2
#define ARROW_FLAG_MAP_KEYS_SORTED 4

struct ArrowSchema {
    const char *format;
    const char *name;
    const char *metadata;
    int64_t flags;
    int64_t n_children;
    struct ArrowSchema **children;
    struct ArrowSchema *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};
#endif

#ifndef ARROW_C_STREAM_INTERFACE
#define ARROW_C_STREAM_INTERFACE

struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};
#endif

/* The version of the library that this header came with. */
#define INSITU_VERSION_MAJOR 0
#define INSITU_VERSION_MINOR 1
#define INSITU_VERSION_PATCH 0

/*
 * From here to the next mark there are declarations, and macros that are whole numbers, only: what
 * cffi and its like can read. -- declarations
 */

/* How a call ended. New numbers may be added. */
enum {
    /* All is well. */
    INSITU_OK = 0,
    /* The region, or what backs it, has no room for what was asked. */
    INSITU_REGION_FULL = 1,
    /* There is no region of that name, path or descriptor. */
    INSITU_REGION_NOT_FOUND = 2,
    /* A region of that name or path exists already. */
    INSITU_REGION_EXISTS = 3,
    /* The file or segment is not a region, is truncated, or contradicts itself. */
    INSITU_REGION_CORRUPT = 4,
    /* The region was made by another version of the format. */
    INSITU_VERSION_MISMATCH = 5,
    /* The operating system refuses access to the region. */
    INSITU_PERMISSION_DENIED = 6,
    /* The region was opened for reading only. */
    INSITU_READ_ONLY = 7,
    /* As many processes as the region has room for are attached to it. */
    INSITU_SESSION_LIMIT = 8,
    /* The region holds as many tables as it was created for. */
    INSITU_TABLE_LIMIT = 9,
    /* The region has no table of that name. */
    INSITU_TABLE_NOT_FOUND = 10,
    /* The region has a table of that name already. */
    INSITU_TABLE_EXISTS = 11,
    /* Others read the table and keep its content from being changed. */
    INSITU_LEASE_HELD = 12,
    /* What was waited for did not happen in time. */
    INSITU_TIMEOUT = 13,
    /* A process died while it changed the table in place. */
    INSITU_POISONED = 14,
    /* The region is closed, or the table is gone. */
    INSITU_STALE = 15,
    /* Data breaks the rules of the Arrow format. */
    INSITU_INVALID_DATA = 16,
    /* Columns or types differ from those expected. */
    INSITU_SCHEMA_MISMATCH = 17,
    /* Lengths or counts differ from those expected. */
    INSITU_SHAPE_MISMATCH = 18,
    /* An operation does not take values of that type. */
    INSITU_TYPE_MISMATCH = 19,
    /* The table has no column of that name. */
    INSITU_UNKNOWN_COLUMN = 20,
    /* The query makes no sense, whatever the data. */
    INSITU_INVALID_PLAN = 21,
    /* An argument has a value it must not have. */
    INSITU_INVALID_ARGUMENT = 22,
    /* Something is larger or deeper than the engine allows. */
    INSITU_LIMIT_EXCEEDED = 23,
    /* A value does not fit the type it was cast to. */
    INSITU_CAST_FAILED = 24,
    /* The result of an integer operation does not fit its type. */
    INSITU_OVERFLOW = 25,
    /* The data cannot be handed out without a copy. */
    INSITU_NOT_ZERO_COPY = 26,
    /* The process has no memory for an intermediate result. */
    INSITU_OUT_OF_MEMORY = 27,
    /* The engine does not do this. */
    INSITU_UNSUPPORTED = 28,
    /* The operation was interrupted. */
    INSITU_CANCELLED = 29,
    /* The operating system reported an error. */
    INSITU_IO = 30,
    /* A defect of the library, which it has caught: please report it. */
    INSITU_INTERNAL = -1,
};

/**
 * The interface that this header describes. It grows by new functions, and by new fields at the end
 * of structs that begin with their size; whatever else changes raises this number, and that in the
 * shared library's name (`libinsitu.so.1`).
 */
#define INSITU_ABI_VERSION 1

/** Flag: what has the name already is replaced. */
#define INSITU_FLAG_REPLACE 1

/** Flag: integer arithmetic that leaves its type is `INSITU_OVERFLOW`; else it wraps. */
#define INSITU_FLAG_CHECKED 2

/** Flag of an update: over the old values, or not at all. */
#define INSITU_FLAG_IN_PLACE 4

/** Flag of an update: beside the old values in any case, so that it can be cancelled to the end. */
#define INSITU_FLAG_ATOMIC 8

/** Flag of opening a region: for reading only. Queries need memory of the region, and are refused. */
#define INSITU_FLAG_READ_ONLY 16

/** Flag of creating a region: one that exists already is opened. */
#define INSITU_FLAG_OPEN_EXISTING 32

/** Flag of creating a region: it goes with the last process that has it open. */
#define INSITU_FLAG_EPHEMERAL 64

/** Flag of a lease: nobody else reads or changes the table. */
#define INSITU_FLAG_EXCLUSIVE 128

/** The size of `InsituOptions` in the interface's first version, the least that is taken. */
#define INSITU_OPTIONS_1_SIZE 48

/** Null, of no type. */
#define INSITU_TYPE_NULL 0

/** Booleans. In arrays, bytes: 0 is false. */
#define INSITU_TYPE_BOOL 1

/** `int8_t`. */
#define INSITU_TYPE_INT8 2

/** `int16_t`. */
#define INSITU_TYPE_INT16 3

/** `int32_t`. */
#define INSITU_TYPE_INT32 4

/** `int64_t`. */
#define INSITU_TYPE_INT64 5

/** `uint8_t`. */
#define INSITU_TYPE_UINT8 6

/** `uint16_t`. */
#define INSITU_TYPE_UINT16 7

/** `uint32_t`. */
#define INSITU_TYPE_UINT32 8

/** `uint64_t`. */
#define INSITU_TYPE_UINT64 9

/** `float`. */
#define INSITU_TYPE_FLOAT32 10

/** `double`. */
#define INSITU_TYPE_FLOAT64 11

/** A text in UTF-8. */
#define INSITU_TYPE_STRING 12

/** Days since 1970-01-01. */
#define INSITU_TYPE_DATE 13

/** A point in time: units since 1970-01-01. */
#define INSITU_TYPE_TIMESTAMP 14

/** A span of time, in units. */
#define INSITU_TYPE_DURATION 15

/** The size of `InsituStats` in the interface's first version, the least that is taken. */
#define INSITU_STATS_1_SIZE 128

/** How a call ended: `INSITU_OK`, or what went wrong. */
typedef int32_t InsituStatus;

/**
 * What went wrong, in words. The struct is the caller's; what it points to is the library's, until
 * `release` is called.
 *
 * Fill it with zeros before its first use (`InsituError error = {0};`). A call that succeeds leaves
 * it alone; a call that fails releases what a failed call left in it before, and fills it. When it
 * is no longer wanted, call `error.release(&error)` if `release` is not NULL; that leaves it filled
 * with zeros. Wherever a function takes one, NULL will do for who wants no message.
 *
 * One struct is for one call at a time.
 */
typedef struct InsituError {
    /** The status that the call returned. */
    InsituStatus code;
    /** Zero. */
    uint32_t reserved;
    /**
     * A sentence in UTF-8 for people: what was asked, what is the case, what to do. Ends with a
     * zero byte; NULL if there is none.
     */
    const char *message;
    /** Frees the message; NULL if there is nothing to free. */
    void (*release)(struct InsituError *error);
    /** The library's own. */
    void *private_data;
} InsituError;

/** A region that is open: shared memory with named tables in it. */
typedef struct InsituRegion {
    /** 0 stands for no region. */
    uint64_t id;
} InsituRegion;

/**
 * What a region holds, and what this process did with it. Set `size` to `sizeof(InsituStats)`
 * before the call. Sizes are in bytes.
 */
typedef struct InsituStats {
    /** `sizeof(InsituStats)`. */
    size_t size;
    /** The most bytes the region may hold. */
    uint64_t capacity;
    /** What tables and results take of it, in granules of 64 KiB. */
    uint64_t used;
    /** `capacity` less `used`. */
    uint64_t free;
    /** What the system has set aside: used, or warm for the next use. */
    uint64_t reserved;
    /** Tables that can be opened by name. */
    uint64_t tables;
    /** The most tables the region has room for. */
    uint64_t max_tables;
    /** Replaced or deleted tables that handles still keep. */
    uint64_t retired;
    /** Tables whose updater died while it changed them in place. */
    uint64_t poisoned;
    /** Results on their way to other processes. */
    uint64_t tickets;
    /** Processes that have the region open, this one included. */
    uint64_t sessions;
    /** How often a dead process's work was taken over. */
    uint64_t recoveries;
    /** Copies that this process made and a user might not expect. */
    uint64_t copies;
    /** The bytes of those copies. */
    uint64_t copied_bytes;
    /** Updates of this process that worked in place. */
    uint64_t updates_in_place;
    /** Updates of this process that wrote beside the old values and swapped. */
    uint64_t updates_swapped;
} InsituStats;

/** What watches a call, and can cancel it, from another thread. */
typedef struct InsituTask {
    /** 0 stands for no task. */
    uint64_t id;
} InsituTask;

/** A type of values. */
typedef uint32_t InsituType;

/** A number. Which of these it is, the type beside it says. */
typedef union InsituNumber {
    /** Of integers with a sign; of booleans, 0 or 1; of dates, days; of times, units. */
    int64_t i64;
    /** Of integers without one. */
    uint64_t u64;
    /** Of floats. */
    double f64;
} InsituNumber;

/**
 * One value. Numbers are wide here whatever they are beside: in a query they take the type of the
 * column that they meet.
 */
typedef struct InsituScalar {
    /** What it is: null, a boolean, a number, a string, a date, a timestamp or a duration. */
    InsituType type;
    /** Of timestamps and durations, how many units make a second: 1, 1000, 1000000 or 1000000000. */
    uint32_t per_second;
    /** The number: `i64` of integers with a sign, `u64` of those without, `f64` of floats. */
    InsituNumber number;
    /**
     * Of strings, the text, ending with a zero byte; of timestamps, their time zone, NULL for local
     * time; of others nothing, and NULL.
     */
    const char *text;
} InsituScalar;

/** The value of a parameter: of what a plan's text calls `$name`. */
typedef struct InsituParam {
    /** Its name, without the dollar. */
    const char *name;
    /** Its value. */
    InsituScalar value;
} InsituParam;

/**
 * How a call is made. Fill it with zeros, set `size` to `sizeof(InsituOptions)`, then what is
 * wanted; where a function takes options, NULL will do for all zeros. What a function does not say
 * that it heeds must be zero.
 */
typedef struct InsituOptions {
    /** `sizeof(InsituOptions)`. */
    size_t size;
    /** Those of the `INSITU_FLAG_` constants that are wanted, added up. */
    uint32_t flags;
    /** Zero. */
    uint32_t reserved;
    /**
     * How long to wait, in milliseconds, where something has to be waited for; 0 for what is usual
     * there, less than 0 for not at all.
     */
    int64_t timeout_ms;
    /** What watches and can cancel the call. */
    InsituTask task;
    /** Values of the plan's parameters. */
    const InsituParam *params;
    /** How many there are. */
    size_t n_params;
} InsituOptions;

/**
 * A table of a region, or the result of a query. It keeps the memory of what it stands for, not its
 * content: others may update the table, and what is read next is what is there then.
 */
typedef struct InsituTable {
    /** 0 stands for no table. */
    uint64_t id;
} InsituTable;

/** What is to be computed, of whatever table. */
typedef struct InsituPlan {
    /** 0 stands for no plan. */
    uint64_t id;
} InsituPlan;

/** A plan that was checked and compiled for a table, to be run more than once. */
typedef struct InsituPrepared {
    /** 0 stands for no prepared query. */
    uint64_t id;
} InsituPrepared;

/**
 * A hold on the content of a table: shared, so that nobody changes it in place, or exclusive, so
 * that nobody else even reads it.
 */
typedef struct InsituLease {
    /** 0 stands for no lease. */
    uint64_t id;
} InsituLease;

/** A formula over arrays anywhere in the process, as `insitu_formula_evaluate` computes it. */
typedef struct InsituFormula {
    /** 0 stands for no formula. */
    uint64_t id;
} InsituFormula;

/** An array of the caller's: values one behind the other, aligned to their type, no more. */
typedef struct InsituArray {
    /** The operand that it is; NULL for the result. */
    const char *name;
    /** The type of its values: booleans, or numbers. */
    InsituType type;
    /** 1 if it is one value for all rows; else 0. */
    uint32_t scalar;
    /** The first value. */
    void *data;
} InsituArray;

/* ---- The library ---- */

/**
 * The interface that the library has which the program runs with. If it is another than
 * `INSITU_ABI_VERSION`, use nothing else of it.
 */
uint32_t insitu_abi_version(void);

/** The version of the library which the program runs with, as text: `"0.1.0"`. */
const char *insitu_version(void);

/**
 * Sets how many threads work on a call, the caller's included, from the next one on; 0 goes back to
 * what `INSITU_THREADS` in the environment says, or the number of CPUs.
 */
InsituStatus insitu_set_threads(size_t threads,
                                InsituError *error);

/* ---- Errors ---- */

/**
 * Frees the message of an error and fills the struct with zeros: what its `release` does. Does
 * nothing for NULL, and for a struct that is filled with zeros.
 */
void insitu_error_release(InsituError *error);

/* ---- Regions ---- */

/**
 * Makes a region.
 *
 * `location` is a name in shared memory, of letters, digits and `_.-`; or a file's path, which has
 * a slash in it (`./market`); or NULL for memory without a name, which is passed on by its
 * descriptor. `capacity` is the most bytes it may hold, 0 for half of what there is; none of them
 * are taken before they are used. `max_tables` is the most tables, 0 for one per 64 KiB. `flags`
 * may have `INSITU_FLAG_REPLACE`, `INSITU_FLAG_OPEN_EXISTING` (of a region that exists, capacity
 * and limits are its own) and `INSITU_FLAG_EPHEMERAL`.
 *
 * A named region stays when its last user ends, until somebody removes it.
 *
 * Errors: `INSITU_REGION_EXISTS`; `INSITU_INVALID_ARGUMENT` for a bad name or capacity;
 * `INSITU_REGION_FULL`, `INSITU_PERMISSION_DENIED`, `INSITU_IO`.
 */
InsituStatus insitu_region_create(const char *location,
                                  uint64_t capacity,
                                  uint32_t max_tables,
                                  uint32_t flags,
                                  InsituRegion *region,
                                  InsituError *error);

/**
 * Opens a region that exists, by the name or path it was made with. `flags` may have
 * `INSITU_FLAG_READ_ONLY`. A region that a process opens several times is one to it, and closed
 * when the last handle on it and on its tables is released.
 *
 * Errors: `INSITU_REGION_NOT_FOUND`, `INSITU_REGION_CORRUPT`, `INSITU_VERSION_MISMATCH`,
 * `INSITU_SESSION_LIMIT`, `INSITU_PERMISSION_DENIED`.
 */
InsituStatus insitu_region_open(const char *location,
                                uint32_t flags,
                                InsituRegion *region,
                                InsituError *error);

/**
 * Opens a region without a name by its descriptor, which was inherited or received. The descriptor
 * stays the caller's, and may be closed after the call. Flags and errors as of
 * `insitu_region_open`.
 */
InsituStatus insitu_region_open_fd(int fd,
                                   uint32_t flags,
                                   InsituRegion *region,
                                   InsituError *error);

/**
 * The descriptor of a region without a name, to be inherited or sent. It stays the region's, and is
 * open as long as that. `INSITU_UNSUPPORTED` for a region that has a name or a path: open it by
 * that.
 */
InsituStatus insitu_region_fd(InsituRegion region,
                              int *fd,
                              InsituError *error);

/**
 * Removes the name or the file of a region. Who has it open carries on.
 *
 * Errors: `INSITU_REGION_NOT_FOUND`, `INSITU_PERMISSION_DENIED`.
 */
InsituStatus insitu_region_remove(const char *location,
                                  InsituError *error);

/** The names of the region's tables, sorted: a stream with a column `name` of strings. */
InsituStatus insitu_region_tables(InsituRegion region,
                                  struct ArrowArrayStream *names,
                                  InsituError *error);

/** Numbers about the region and this process's use of it. */
InsituStatus insitu_region_stats(InsituRegion region,
                                 InsituStats *stats,
                                 InsituError *error);

/**
 * Who holds which table, in all processes: a stream with the columns `pid`, `table`, `current`
 * (whether the table still has its name), `kind` (`pin`, `lease`, `update`, `exclusive`, ...),
 * `since` (milliseconds since 1970, null if it is not known), `what` (what for) and `bytes`.
 */
InsituStatus insitu_region_leases(InsituRegion region,
                                  struct ArrowArrayStream *leases,
                                  InsituError *error);

/**
 * Takes back what dead processes left, and gives memory that is free but warm to the system. The
 * bytes that became free and those that were given are added up in `bytes`, which may be NULL.
 */
InsituStatus insitu_region_trim(InsituRegion region,
                                uint64_t *bytes,
                                InsituError *error);

/**
 * Makes a file durable: after a loss of power it opens as the last flush that returned left it, or a
 * later one. Does nothing for regions that are no files. Heeds the options' task.
 *
 * Errors: `INSITU_IO`, `INSITU_LEASE_HELD` while a table is updated in place for long,
 * `INSITU_CANCELLED`.
 */
InsituStatus insitu_region_flush(InsituRegion region,
                                 const InsituOptions *options,
                                 InsituError *error);

/**
 * Releases a handle of a region. The process has the region open until its last handle, the last
 * handle of a table of it and the last stream that shows its memory are released.
 */
InsituStatus insitu_region_release(InsituRegion region,
                                   InsituError *error);

/* ---- Tables ---- */

/**
 * Copies a stream of Arrow data into the region, as the table of that name: the one copy there is.
 * Statistics are gathered and the data is checked on the way; other processes see the table when it
 * is complete, or not at all.
 *
 * The stream is the library's from then on: it is released, and its struct marked so, whether the
 * call succeeds or not. Heeds `INSITU_FLAG_REPLACE` and the options' task. `table` may be NULL.
 *
 * Errors: `INSITU_TABLE_EXISTS`; `INSITU_REGION_FULL`; `INSITU_INVALID_DATA`, with column and row,
 * or with the words of a stream that fails; `INSITU_UNSUPPORTED` for union, run-end encoded and list
 * view columns; `INSITU_CANCELLED`. The region is as it was then.
 */
InsituStatus insitu_table_put(InsituRegion region,
                              const char *name,
                              struct ArrowArrayStream *stream,
                              const InsituOptions *options,
                              InsituTable *table,
                              InsituError *error);

/**
 * Appends the rows of a stream to a table that has a name, as a new revision, which `appended`
 * becomes a handle of (it may be NULL). The old rows are shared; `table` and all other handles
 * stay on them. The stream is taken as by `insitu_table_put`. Heeds the options' task.
 *
 * Errors: `INSITU_SCHEMA_MISMATCH`; `INSITU_STALE` for a table that has lost its name;
 * `INSITU_INVALID_ARGUMENT` for one without; those of `insitu_table_put`.
 */
InsituStatus insitu_table_append(InsituTable table,
                                 struct ArrowArrayStream *stream,
                                 const InsituOptions *options,
                                 InsituTable *appended,
                                 InsituError *error);

/**
 * Gives a table a name in a region: the result of a query its first, or another one. Its memory is
 * shared, not copied, if it lies in that region, but for very small results. Heeds
 * `INSITU_FLAG_REPLACE` and the options' task. `named` may be NULL.
 *
 * Errors: `INSITU_TABLE_EXISTS`, `INSITU_REGION_FULL`, `INSITU_TABLE_LIMIT`, `INSITU_CANCELLED`.
 */
InsituStatus insitu_table_publish(InsituRegion region,
                                  const char *name,
                                  InsituTable table,
                                  const InsituOptions *options,
                                  InsituTable *named,
                                  InsituError *error);

/**
 * Opens the table of that name, as it is now.
 *
 * Errors: `INSITU_TABLE_NOT_FOUND`, with the nearest name.
 */
InsituStatus insitu_table_open(InsituRegion region,
                               const char *name,
                               InsituTable *table,
                               InsituError *error);

/**
 * Waits until there is a table of that name, and, if `newer_than` is a handle, until it is newer
 * than that one: put, appended to or updated since. Opens it. Heeds the options' timeout (0: for
 * ever) and task.
 *
 * Errors: `INSITU_TIMEOUT`, `INSITU_CANCELLED`.
 */
InsituStatus insitu_table_wait(InsituRegion region,
                               const char *name,
                               InsituTable newer_than,
                               const InsituOptions *options,
                               InsituTable *table,
                               InsituError *error);

/**
 * Opens what the table's name stands for now. A result without a name is its own latest.
 *
 * Errors: `INSITU_TABLE_NOT_FOUND` if the name is gone.
 */
InsituStatus insitu_table_latest(InsituTable table,
                                 InsituTable *latest,
                                 InsituError *error);

/**
 * Deletes the name of a table. Handles and streams of it stay good, and its memory is free when the
 * last of them, in all processes, is released.
 *
 * Errors: `INSITU_TABLE_NOT_FOUND`.
 */
InsituStatus insitu_table_delete(InsituRegion region,
                                 const char *name,
                                 InsituError *error);

/** How many rows and columns a table has. `rows` or `columns` may be NULL. */
InsituStatus insitu_table_shape(InsituTable table,
                                uint64_t *rows,
                                uint64_t *columns,
                                InsituError *error);

/**
 * The names and types of a table's columns: a struct type with one field for each. Release it by
 * its own `release`.
 */
InsituStatus insitu_table_schema(InsituTable table,
                                 struct ArrowSchema *schema,
                                 InsituError *error);

/**
 * Hands a table out as a stream of Arrow arrays, without a copy: they point into the region, to
 * memory that cannot be written through them, aligned to 64 bytes. One array of structs for each
 * chunk of the table.
 *
 * Until the stream and all arrays of it are released, by their own `release`, they hold a shared
 * lease: nobody changes what they show, whatever becomes of the table, its handles and the region.
 * Heeds the options' task, while somebody changes the table just now.
 *
 * Errors: `INSITU_LEASE_HELD` if somebody has the table exclusively for long; `INSITU_POISONED`;
 * `INSITU_CANCELLED`.
 */
InsituStatus insitu_table_export(InsituTable table,
                                 const InsituOptions *options,
                                 struct ArrowArrayStream *stream,
                                 InsituError *error);

/**
 * The value of a query's result that has one row and one column: a number, a boolean or null.
 *
 * Errors: `INSITU_SHAPE_MISMATCH` for a table of another shape; `INSITU_UNSUPPORTED` for a value of
 * another type, and for a table that has a name, whose content may change: export these.
 */
InsituStatus insitu_table_value(InsituTable table,
                                InsituScalar *value,
                                InsituError *error);

/**
 * Accepts the content of a poisoned table as it is: each row is old or new. (A table is poisoned if
 * a process died while it changed it in place.) Of another table nothing changes.
 *
 * Errors: `INSITU_LEASE_HELD`, `INSITU_READ_ONLY`.
 */
InsituStatus insitu_table_repair(InsituTable table,
                                 InsituError *error);

/**
 * Releases a handle of a table. The table itself stays if it has a name; a result without one is
 * gone with its last handle and stream.
 */
InsituStatus insitu_table_release(InsituTable table,
                                  InsituError *error);

/* ---- Plans, queries and updates ---- */

/**
 * Reads a plan from text: what to compute, and of which rows, as SELECT and WHERE of SQL.
 *
 * `select` is a list of expressions, `"carrier, air_time / 60 AS hours"`, which are the columns of
 * the result; or `"*"` for all columns, possibly with expressions after it, which are added or
 * replace columns by name; NULL is `"*"`. `filter` is a condition, `"distance > $least and
 * carrier == 'AA'"`; NULL chooses all rows.
 *
 * Expressions are written as in Python, with its operators and precedence: `and`, `or` and `not` are
 * `&`, `|` and `~`, but bind looser than comparisons. A name is a column, in backquotes if it is no
 * plain word; `$name` is a parameter; strings stand in single or double quotes; functions are those
 * of the engine, and `where(condition, a, b)` and `is_in(x, 1, 2)`. With aggregates only, as in
 * `"sum(price), len()"`, the result has one row. What cannot be said so (groups, an order) can be as
 * a message.
 *
 * Errors: `INSITU_INVALID_PLAN`, with the position of what is wrong; `INSITU_LIMIT_EXCEEDED`.
 * Whether a table has the columns is checked when the plan meets it.
 */
InsituStatus insitu_plan_parse(const char *select,
                               const char *filter,
                               InsituPlan *plan,
                               InsituError *error);

/**
 * Reads a plan from an `insitu.v1.Plan` message of Protocol Buffers, of `size` bytes.
 *
 * Errors: `INSITU_INVALID_PLAN` for bytes that are none, `INSITU_LIMIT_EXCEEDED` for one that is too
 * large or too deep, `INSITU_INVALID_ARGUMENT` for functions that do not exist.
 */
InsituStatus insitu_plan_decode(const uint8_t *message,
                                size_t size,
                                InsituPlan *plan,
                                InsituError *error);

/** Releases a plan. Queries that were prepared of it stay good. */
InsituStatus insitu_plan_release(InsituPlan plan,
                                 InsituError *error);

/**
 * Runs a plan over a table, once. The result lies in the region, as this process's own, until
 * `insitu_table_publish` gives it a name. Heeds `INSITU_FLAG_CHECKED`, the options' parameters and
 * task.
 *
 * Errors: those of `insitu_prepare` and `insitu_prepared_run`.
 */
InsituStatus insitu_query(InsituTable table,
                          InsituPlan plan,
                          const InsituOptions *options,
                          InsituTable *result,
                          InsituError *error);

/**
 * Checks a plan against a table's columns and compiles it, to be run more than once. The prepared
 * query keeps the table's memory as a handle of the table does.
 *
 * Errors: `INSITU_UNKNOWN_COLUMN` with the nearest name, `INSITU_TYPE_MISMATCH`,
 * `INSITU_INVALID_PLAN`, `INSITU_LIMIT_EXCEEDED`, `INSITU_UNSUPPORTED`.
 */
InsituStatus insitu_prepare(InsituTable table,
                            InsituPlan plan,
                            InsituPrepared *prepared,
                            InsituError *error);

/**
 * Runs a prepared query over what its table holds now, or over another table of the same columns
 * and region, if `table` is a handle (`(InsituTable){0}` if not). Several threads may run it at
 * once. Heeds `INSITU_FLAG_CHECKED`, the options' parameters and task.
 *
 * The result lies in the region, as this process's own. Release it: its memory is warm then, and
 * the next result's.
 *
 * Errors: `INSITU_SCHEMA_MISMATCH` for a table of other columns; `INSITU_INVALID_ARGUMENT` for a
 * parameter without a value, or a value without a parameter; `INSITU_REGION_FULL`;
 * `INSITU_CAST_FAILED` and `INSITU_OVERFLOW`, which name the row; `INSITU_LEASE_HELD`,
 * `INSITU_POISONED`, `INSITU_CANCELLED`.
 */
InsituStatus insitu_prepared_run(InsituPrepared prepared,
                                 InsituTable table,
                                 const InsituOptions *options,
                                 InsituTable *result,
                                 InsituError *error);

/**
 * How a prepared query is run, in words for people: writes at most `capacity` bytes to `buffer`,
 * the zero at the end included, and to `needed` how many there are. `buffer` may be NULL if
 * `capacity` is 0; `needed` may be NULL.
 */
InsituStatus insitu_prepared_explain(InsituPrepared prepared,
                                     char *buffer,
                                     size_t capacity,
                                     size_t *needed,
                                     InsituError *error);

/** Releases a prepared query. Runs that are under way go on. */
InsituStatus insitu_prepared_release(InsituPrepared prepared,
                                     InsituError *error);

/**
 * Gives columns of a table new values: those of the plan's columns, by name, in the rows that its
 * filters choose (`insitu_plan_parse("price * 2 AS price", "size > 20", ...)`). Every expression
 * reads the old values, of all columns and all rows, also an aggregate in it. No column changes its
 * type, and none is added.
 *
 * The values are written over the old ones where nobody else reads the table and nothing else
 * shares its memory; else the new columns are written beside the old and swapped in. Handles, in
 * all processes, see the new values at their next use; streams show what they showed.
 * `INSITU_FLAG_IN_PLACE` refuses to swap, `INSITU_FLAG_ATOMIC` always swaps. Heeds
 * `INSITU_FLAG_CHECKED` too, and the options' timeout (how long to wait for another update, 0: ten
 * seconds; with `INSITU_FLAG_IN_PLACE` also for readers, 0: not at all) and task, until the first
 * value is written over.
 *
 * Errors: `INSITU_UNKNOWN_COLUMN`, `INSITU_TYPE_MISMATCH`; `INSITU_CAST_FAILED`, `INSITU_OVERFLOW`,
 * `INSITU_INVALID_DATA` for the first chosen row that fails, before any is changed; `INSITU_STALE`
 * for a table that was replaced or deleted; `INSITU_LEASE_HELD` and `INSITU_UNSUPPORTED` where it
 * has to be in place and cannot; `INSITU_INVALID_ARGUMENT` for a plan that is no filters and then
 * one list of columns, and for parameters in it; `INSITU_POISONED`, `INSITU_REGION_FULL`,
 * `INSITU_READ_ONLY`, `INSITU_CANCELLED`.
 */
InsituStatus insitu_table_update(InsituTable table,
                                 InsituPlan plan,
                                 const InsituOptions *options,
                                 InsituError *error);

/* ---- Tasks: progress and cancellation ---- */

/** Makes a task, to be given to calls in their options. */
InsituStatus insitu_task_create(InsituTask *task,
                                InsituError *error);

/**
 * Cancels the calls that were given the task, now and later: they end with `INSITU_CANCELLED` within
 * some 50 ms, unless they are done before. An update that has begun to write over the old values is
 * carried through.
 */
InsituStatus insitu_task_cancel(InsituTask task,
                                InsituError *error);

/**
 * How far the calls are that were given the task: rows done, and rows to do as far as is known. A
 * later pass over the rows adds to both. `done` or `total` may be NULL.
 */
InsituStatus insitu_task_progress(InsituTask task,
                                  uint64_t *done,
                                  uint64_t *total,
                                  InsituError *error);

/** Releases a task. Calls that it was given to go on, and can no longer be cancelled. */
InsituStatus insitu_task_release(InsituTask task,
                                 InsituError *error);

/* ---- Leases ---- */

/**
 * Takes a lease on a table, which lasts until it is released.
 *
 * A shared one keeps what the table holds now from being changed where it lies: updates write
 * beside it meanwhile, and swap, so that handles see the new content, and streams the old; those
 * that insist on writing in place are refused.
 *
 * An exclusive one, with `INSITU_FLAG_EXCLUSIVE`, is the calling thread's: its queries and updates
 * of the table run, everybody else's wait, for ten seconds, and fail with `INSITU_LEASE_HELD`.
 * Keep those short. Streams cannot be exported under it: they could outlive it.
 *
 * Heeds the options' timeout (how long to wait for others; 0: not at all for readers, ten seconds
 * for another update) of an exclusive one, and the task.
 *
 * Errors: `INSITU_LEASE_HELD`, which names who; `INSITU_STALE` for a table that was replaced or
 * deleted; `INSITU_POISONED`, `INSITU_READ_ONLY`, `INSITU_CANCELLED`; `INSITU_UNSUPPORTED` for an
 * exclusive lease on a result without a name, which is this process's alone already.
 */
InsituStatus insitu_table_lease(InsituTable table,
                                const InsituOptions *options,
                                InsituLease *lease,
                                InsituError *error);

/** Releases a lease, from whatever thread. */
InsituStatus insitu_lease_release(InsituLease lease,
                                  InsituError *error);

/* ---- Formulas over arrays anywhere, without a region ---- */

/**
 * Reads a formula in numexpr's language: `"where(a > 0, a*b + 2*c, sqrt(b))"`. Its kinds of values
 * are booleans, 32 and 64-bit integers and floats; narrower integers become 32-bit ones; the
 * reductions are `sum(x)`, `prod(x)`, `min(x)` and `max(x)`, of a whole formula. What it is compiled
 * to, for operands of some types, is kept with it.
 *
 * Errors: `INSITU_INVALID_PLAN`, with the position of what is wrong; `INSITU_UNSUPPORTED` for
 * complex numbers and strings; `INSITU_LIMIT_EXCEEDED`.
 */
InsituStatus insitu_formula_parse(const char *text,
                                  InsituFormula *formula,
                                  InsituError *error);

/**
 * The type of a formula's values over operands of these types; what they point to is not looked at.
 *
 * Errors: `INSITU_TYPE_MISMATCH` for operators and functions that do not take such operands;
 * `INSITU_INVALID_ARGUMENT` for an operand that is missing, or of no type of numbers, or of unsigned
 * ones of 64 bits, which formulas do not have.
 */
InsituStatus insitu_formula_type(InsituFormula formula,
                                 const InsituArray *operands,
                                 size_t n_operands,
                                 InsituType *result,
                                 InsituError *error);

/**
 * Computes a formula for `rows` rows, in one pass, with all of the engine's threads: from the
 * operands, which are found by their names (each has one; the first of a name counts, and what the
 * formula does not name is passed over), to `out`, which is of the type that `insitu_formula_type`
 * says. A reduction gives one value. `out` may be one of the operands, or overlap with some; nobody
 * else may write to any of them meanwhile. Heeds the options' task; after `INSITU_CANCELLED` and
 * `INSITU_OUT_OF_MEMORY`, what `out` holds is not known.
 *
 * Errors: those of `insitu_formula_type`; `INSITU_TYPE_MISMATCH` if `out` is of another type;
 * `INSITU_INVALID_ARGUMENT` for data that is NULL or not aligned, for a reduction of single values
 * alone, and for the smallest or largest of no rows; `INSITU_OVERFLOW` for a sum or product that does not fit; `INSITU_OUT_OF_MEMORY`,
 * `INSITU_CANCELLED`.
 */
InsituStatus insitu_formula_evaluate(InsituFormula formula,
                                     const InsituArray *operands,
                                     size_t n_operands,
                                     size_t rows,
                                     const InsituArray *out,
                                     const InsituOptions *options,
                                     InsituError *error);

/** Releases a formula. Calls that compute it go on. */
InsituStatus insitu_formula_release(InsituFormula formula,
                                    InsituError *error);

/* -- end of declarations */

#ifdef __cplusplus
}
#endif

#endif /* INSITU_H */
