/* Counts the lines, words and bytes of a request's body.
 *
 * The program is run once for each request: the body is its standard input, what it writes to standard
 * output is the answer. */

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>

int main(void) {
    unsigned long long lines = 0, words = 0, bytes = 0;
    bool in_word = false;
    int byte;
    while ((byte = getchar()) != EOF) {
        bytes++;
        lines += byte == '\n';
        bool space = isspace(byte);
        words += in_word && space;
        in_word = !space;
    }
    words += in_word;
    if (ferror(stdin)) {
        perror("the body can't be read");
        return 1;
    }
    printf("{\"lines\":%llu,\"words\":%llu,\"bytes\":%llu}\n", lines, words, bytes);
    return 0;
}
