/*
 * A small market in C: creates a region, puts a table of trades, and computes on it where it lies.
 *
 *     cc -std=c11 examples/market.c $(pkg-config --cflags --libs insitu) -o market && ./market demo
 *
 * While it waits for a line on its standard input, any other process may look:
 *
 *     python3 -c "import insitu; print(insitu.open('demo')['trades'].to_pandas())"
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "insitu.h"

enum { ROWS = 100000 };

static InsituError error;

/* Ends the program with what the library says is wrong. */
static void check(InsituStatus status, const char *doing)
{
    if (status != INSITU_OK) {
        fprintf(stderr, "%s: %s (status %" PRId32 ")\n", doing, error.message, status);
        insitu_error_release(&error);
        exit(1);
    }
}

/* ---- An Arrow stream of one batch, with the columns `price` and `size` ---- */

/* What the batch is made of: its memory, and the structs that describe it. */
struct Trades {
    double price[ROWS];
    int64_t size[ROWS];
    struct ArrowArray columns[2];
    struct ArrowArray *children[2];
    const void *buffers[2][2];
    const void *none[1];
};

struct TradesSchema {
    struct ArrowSchema columns[2];
    struct ArrowSchema *children[2];
};

static void release_column(struct ArrowArray *array)
{
    array->release = NULL;
}

static void release_trades(struct ArrowArray *array)
{
    struct Trades *trades = array->private_data;
    for (int i = 0; i < 2; i++)
        if (trades->columns[i].release)
            trades->columns[i].release(&trades->columns[i]);
    free(trades);
    array->release = NULL;
}

static void release_column_schema(struct ArrowSchema *schema)
{
    schema->release = NULL;
}

static void release_schema(struct ArrowSchema *schema)
{
    free(schema->private_data);
    schema->release = NULL;
}

static int get_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out)
{
    static const char *const formats[2] = {"g", "l"}, *const names[2] = {"price", "size"};
    struct TradesSchema *made = calloc(1, sizeof *made);
    (void)stream;
    if (!made)
        return 12; /* ENOMEM */
    for (int i = 0; i < 2; i++) {
        made->columns[i] = (struct ArrowSchema){
            .format = formats[i], .name = names[i], .release = release_column_schema};
        made->children[i] = &made->columns[i];
    }
    *out = (struct ArrowSchema){.format = "+s",
                                .name = "",
                                .n_children = 2,
                                .children = made->children,
                                .release = release_schema,
                                .private_data = made};
    return 0;
}

static int get_next(struct ArrowArrayStream *stream, struct ArrowArray *out)
{
    int *left = stream->private_data;
    if (*left == 0) {
        memset(out, 0, sizeof *out);
        return 0;
    }
    struct Trades *trades = calloc(1, sizeof *trades);
    if (!trades)
        return 12;
    *left = 0;
    for (int i = 0; i < ROWS; i++) {
        trades->price[i] = 100.0 + i % 7;
        trades->size[i] = i % 1000;
    }
    trades->buffers[0][1] = trades->price;
    trades->buffers[1][1] = trades->size;
    for (int i = 0; i < 2; i++) {
        trades->columns[i] = (struct ArrowArray){.length = ROWS,
                                                 .n_buffers = 2,
                                                 .buffers = trades->buffers[i],
                                                 .release = release_column};
        trades->children[i] = &trades->columns[i];
    }
    *out = (struct ArrowArray){.length = ROWS,
                               .n_buffers = 1,
                               .buffers = trades->none,
                               .n_children = 2,
                               .children = trades->children,
                               .release = release_trades,
                               .private_data = trades};
    return 0;
}

static const char *get_last_error(struct ArrowArrayStream *stream)
{
    (void)stream;
    return NULL;
}

static void release_stream(struct ArrowArrayStream *stream)
{
    stream->release = NULL;
}

/* ---- What there is to do ---- */

/* The sum of a column's values in all arrays of a table, read where they lie. */
static double sum_of_prices(InsituTable table)
{
    struct ArrowArrayStream stream;
    double sum = 0;
    check(insitu_table_export(table, NULL, &stream, &error), "exporting");
    for (;;) {
        struct ArrowArray batch;
        if (stream.get_next(&stream, &batch) != 0) {
            fprintf(stderr, "reading: %s\n", stream.get_last_error(&stream));
            exit(1);
        }
        if (!batch.release)
            break;
        const struct ArrowArray *price = batch.children[0];
        const double *values = (const double *)price->buffers[1] + price->offset;
        for (int64_t i = 0; i < price->length; i++)
            sum += values[i];
        batch.release(&batch);
    }
    stream.release(&stream);
    return sum;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "market";
    InsituRegion region;
    InsituTable trades, result;
    InsituPlan plan;
    InsituPrepared prepared;
    uint64_t rows;

    if (insitu_abi_version() != INSITU_ABI_VERSION) {
        fprintf(stderr, "built for another interface than that of insitu %s\n", insitu_version());
        return 1;
    }

    /* A region, and a table in it: this is the one copy. */
    check(insitu_region_create(name, 64 << 20, 0, INSITU_FLAG_REPLACE, &region, &error), "creating");
    int left = 1;
    struct ArrowArrayStream source = {get_schema, get_next, get_last_error, release_stream, &left};
    check(insitu_table_put(region, "trades", &source, NULL, &trades, &error), "putting");
    check(insitu_table_shape(trades, &rows, NULL, &error), "looking");
    printf("rows %" PRIu64 "\n", rows);

    /* A query, compiled once and run with several values of its parameter. */
    check(insitu_plan_parse("sum(price * size)", "size >= $least", &plan, &error), "planning");
    check(insitu_prepare(trades, plan, &prepared, &error), "preparing");
    for (int64_t least = 0; least <= 900; least += 300) {
        InsituParam param = {"least", {INSITU_TYPE_INT64, 0, {least}, NULL}};
        InsituOptions options = {.size = sizeof options, .params = &param, .n_params = 1};
        InsituScalar value;
        check(insitu_prepared_run(prepared, (InsituTable){0}, &options, &result, &error), "running");
        check(insitu_table_value(result, &value, &error), "reading");
        printf("turnover of sizes from %" PRId64 ": %.1f\n", least, value.number.f64);
        check(insitu_table_release(result, &error), "releasing");
    }
    check(insitu_prepared_release(prepared, &error), "releasing");
    check(insitu_plan_release(plan, &error), "releasing");

    /* An update, over the old values. */
    printf("sum of prices %.1f\n", sum_of_prices(trades));
    check(insitu_plan_parse("price * 2 AS price", "size < 500", &plan, &error), "planning");
    InsituOptions in_place = {.size = sizeof in_place, .flags = INSITU_FLAG_IN_PLACE};
    check(insitu_table_update(trades, plan, &in_place, &error), "updating");
    check(insitu_plan_release(plan, &error), "releasing");
    printf("sum of prices %.1f\n", sum_of_prices(trades));

    /* What goes wrong is told. */
    InsituTable missing;
    if (insitu_table_open(region, "trade", &missing, &error) == INSITU_TABLE_NOT_FOUND)
        printf("%s\n", error.message);
    insitu_error_release(&error);

    /* Time for others to look. */
    fflush(stdout);
    while (getchar() != '\n' && !feof(stdin)) {
    }
    check(insitu_table_release(trades, &error), "releasing");
    check(insitu_region_release(region, &error), "releasing");
    check(insitu_region_remove(name, &error), "removing");
    return 0;
}
