/* What kind of file standard input is: its label and a confidence, as JSON on standard output.
 *
 * The judgement is magika's: a network looks at the first and the last kilobyte. The labels stand in
 * its configuration, an asset of the bundle; where the network can't be asked, because there are too
 * few bytes, the command ends with the exit code for wrong input. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wasi_nn.h"

/* What magika's configuration says of the window that the network sees. */
#define BEGINNING 1024
#define END 1024
#define BLOCK 4096
#define PADDING 256
#define FEWEST 8

#define LABELS 214

/* Exit codes of sysexits.h that the host knows: the caller's fault, and the function's. */
#define EX_DATAERR 65
#define EX_SOFTWARE 70

static void fail(int code, const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(code);
}

/* Reads a file to its end and keeps its first and its last block, since the network sees no more. Gives
 * how long they are: BLOCK, or less where the file is shorter than that, and then both are all of it. */
static size_t read_ends(FILE *file, unsigned char *first, unsigned char *last) {
    static unsigned char piece[BLOCK];
    size_t block = fread(first, 1, BLOCK, file);
    memcpy(last, first, block);
    for (size_t read = block; read == BLOCK;) {
        read = fread(piece, 1, BLOCK, file);
        memmove(last, last + read, BLOCK - read);
        memcpy(last + BLOCK - read, piece, read);
    }
    if (ferror(file)) fail(EX_SOFTWARE, "standard input can't be read");
    return block;
}

/* Reads all of a file. The caller frees it. */
static unsigned char *read_all(FILE *file, size_t *length) {
    size_t room = 1 << 16;
    unsigned char *bytes = malloc(room + 1);
    *length = 0;
    while (bytes != NULL) {
        size_t read = fread(bytes + *length, 1, room - *length, file);
        *length += read;
        if (read == 0) {
            if (ferror(file)) fail(EX_SOFTWARE, "a file can't be read");
            bytes[*length] = 0;
            return bytes;
        }
        if (*length == room) {
            room *= 2;
            unsigned char *more = realloc(bytes, room + 1);
            if (more == NULL) free(bytes);
            bytes = more;
        }
    }
    fail(EX_SOFTWARE, "out of memory");
    return NULL;
}

static int is_space(unsigned char byte) {
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* The numbers for the network: the first bytes behind white space, the last before some, and padding
 * between them. False where there are too few. */
static int fill_window(const unsigned char *first, const unsigned char *last, size_t block,
                       int32_t *window) {
    size_t beginning = block, end = block;
    for (; beginning > 0 && is_space(*first); first++) beginning--;
    while (end > 0 && is_space(last[end - 1])) end--;
    last += end;
    if (beginning < FEWEST) return 0;
    if (beginning > BEGINNING) beginning = BEGINNING;
    if (end > END) end = END;

    for (size_t i = 0; i < BEGINNING + END; i++) window[i] = PADDING;
    for (size_t i = 0; i < beginning; i++) window[i] = first[i];
    for (size_t i = 0; i < end; i++) window[BEGINNING + END - end + i] = last[(long)i - (long)end];
    return 1;
}

/* Runs the network. The host says on standard error what a call that fails was given. */
static void infer(const int32_t *window, float *scores) {
    const char *model = "magika";
    uint32_t graph, context, written;
    const uint32_t dimensions[] = {1, BEGINNING + END};
    const struct wasi_nn_tensor input = {
        .dimensions = dimensions,
        .rank = 2,
        .type = WASI_NN_I32,
        .data = window,
        .length = (BEGINNING + END) * sizeof *window,
    };
    if (wasi_nn_load_by_name(model, strlen(model), &graph) != WASI_NN_SUCCESS ||
        wasi_nn_init_execution_context(graph, &context) != WASI_NN_SUCCESS ||
        wasi_nn_set_input(context, 0, &input) != WASI_NN_SUCCESS ||
        wasi_nn_compute(context) != WASI_NN_SUCCESS ||
        wasi_nn_get_output(context, 0, scores, LABELS * sizeof *scores, &written) !=
            WASI_NN_SUCCESS ||
        written != LABELS * sizeof *scores)
        fail(EX_SOFTWARE, "the network gave no answer");
}

/* Prints the label with this number: the configuration lists them between brackets. */
static void print_label(size_t wanted, float confidence) {
    FILE *file = fopen("magika.config.json", "r");
    if (file == NULL) fail(EX_SOFTWARE, "the asset magika.config.json is missing");
    size_t length;
    char *text = (char *)read_all(file, &length);
    char *at = strstr(text, "\"target_labels_space\"");
    at = at == NULL ? NULL : strchr(at, '[');
    char *end = at == NULL ? NULL : strchr(at, ']');
    for (size_t i = 0; at != NULL && end != NULL; i++) {
        char *open = strchr(at + 1, '"');
        char *close = open == NULL ? NULL : strchr(open + 1, '"');
        if (close == NULL || close > end) break;
        if (i == wanted) {
            int size = (int)(close - open - 1);
            printf("{\"label\":\"%.*s\",\"confidence\":%.4f}\n", size, open + 1, confidence);
            free(text);
            return;
        }
        at = close;
    }
    fail(EX_SOFTWARE, "magika.config.json has fewer labels than the network");
}

int main(void) {
    static unsigned char first[BLOCK], last[BLOCK];
    static int32_t window[BEGINNING + END];
    static float scores[LABELS];
    size_t block = read_ends(stdin, first, last);
    if (!fill_window(first, last, block, window))
        fail(EX_DATAERR, "expected at least 8 bytes that don't begin with white space");
    infer(window, scores);
    size_t best = 0;
    for (size_t i = 1; i < LABELS; i++)
        if (scores[i] > scores[best]) best = i;
    print_label(best, scores[best]);
    return 0;
}
