/* The adapter of the C port: one JSON object a line, on standard input and output.
 *
 *     cc -O2 -std=c11 -ffp-contract=off -o adapter docs/ports/c/adapter.c -lm */

#include "optimizers.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* JSON, as far as a request needs it: text is walked over, never copied. The text is one whole JSON value that ends
 * with a NUL, as the checker writes it; what is not makes the adapter end. */

static _Noreturn void give_up(const char *why)
{
    fprintf(stderr, "adapter: %s\n", why);
    exit(1);
}

static const char *skip_space(const char *s)
{
    return s + strspn(s, " \t\r\n");
}

static const char *skip_string(const char *s)
{
    if (*s++ != '"')
        give_up("a string was expected");
    for (; *s != '"'; s++)
        if (*s == '\0' || (*s == '\\' && *++s == '\0'))
            give_up("a string does not end");
    return s + 1;
}

/* The end of the value that starts at s. */
static const char *skip_value(const char *s)
{
    if (*s == '"')
        return skip_string(s);
    if (*s != '[' && *s != '{')
        return s + strcspn(s, ",]} \t\r\n");
    size_t depth = 0;
    do {
        if (*s == '"') {
            s = skip_string(s);
            continue;
        }
        if (*s == '\0')
            give_up("a value does not end");
        depth += *s == '[' || *s == '{';
        depth -= *s == ']' || *s == '}';
        s++;
    } while (depth > 0);
    return s;
}

/* The value that a comma-separated list inside brackets goes on with after s, or NULL at the end of the list. */
static const char *next_item(const char *s)
{
    s = skip_space(s);
    if (*s == '[' || *s == '{' || *s == ',')
        s = skip_space(s + 1);
    return *s == ']' || *s == '}' || *s == '\0' ? NULL : s;
}

/* The value of a key of an object, or NULL. */
static const char *find(const char *object, const char *key)
{
    const size_t length = strlen(key);
    if (*object != '{')
        give_up("an object was expected");
    for (const char *s = next_item(object); s != NULL; s = next_item(skip_value(s))) {
        const char *end = skip_string(s), *value = skip_space(end);
        if (*value++ != ':')
            give_up("a key has no value");
        value = skip_space(value);
        if ((size_t)(end - s) == length + 2 && memcmp(s + 1, key, length) == 0)
            return value;
        s = value;
    }
    return NULL;
}

static const char *get(const char *object, const char *key)
{
    const char *value = find(object, key);
    if (value == NULL)
        give_up(key);
    return value;
}

static bool is(const char *value, const char *text)
{
    const size_t length = strlen(text);
    return *value == '"' && strncmp(value + 1, text, length) == 0 && value[length + 1] == '"';
}

static double number(const char *value)
{
    char *end;
    const double x = strtod(value, &end);
    if (end == value)
        give_up("a number was expected");
    return x;
}

/* Reads count numbers, or, where there is one that holds for all, that one count times. */
static void numbers(const char *value, size_t count, double *out)
{
    const bool list = *value == '[';
    const char *s = list ? next_item(value) : value;
    for (size_t i = 0; i < count; i++) {
        if (s == NULL)
            give_up("a list is too short");
        out[i] = number(s);
        if (list)
            s = next_item(skip_value(s));
    }
}

static size_t length_of(const char *list)
{
    size_t count = 0;
    if (*list != '[')
        give_up("a list was expected");
    for (const char *s = next_item(list); s != NULL; s = next_item(skip_value(s)))
        count++;
    return count;
}

/* Floats as bit patterns: 8 hexadecimal digits, most significant first. 4 digits are those of a bfloat16, which is the
 * upper half of a float32. */

static void read_floats(const char *list, size_t count, unsigned digits, float *out)
{
    if (length_of(list) != count)
        give_up("a list of bit patterns has the wrong length");
    const char *s = next_item(list);
    for (size_t i = 0; i < count; i++, s = next_item(skip_value(s))) {
        if (skip_string(s) != s + digits + 2)
            give_up("a bit pattern has the wrong length");
        const uint32_t bits = (uint32_t)strtoul(s + 1, NULL, 16) << (32 - 4 * digits);
        memcpy(&out[i], &bits, sizeof bits);
    }
}

/* Writes one list a step. */
static void write_floats(const float *x, size_t steps, size_t count)
{
    putchar('[');
    for (size_t t = 0; t < steps; t++) {
        printf(t > 0 ? ", [" : "[");
        for (size_t i = 0; i < count; i++) {
            uint32_t bits;
            memcpy(&bits, &x[t * count + i], sizeof bits);
            printf(i > 0 ? ", \"%08lx\"" : "\"%08lx\"", (unsigned long)bits);
        }
        putchar(']');
    }
    putchar(']');
}

static void *allocated(size_t count, size_t size)
{
    void *out = calloc(count > 0 ? count : 1, size);
    if (out == NULL)
        give_up("no memory");
    return out;
}

/* The state slots of each optimizer, by the order in which step() uses them. */
static const struct {
    const char *name, *slots;
} optimizers[] = {
    {"SGD", "v"},   {"RMSprop", "v"}, {"Adagrad", "v"}, {"AdaDelta", "vu"},
    {"Adam", "mv"}, {"AdamW", "mv"},  {"Adamax", "mv"}, {"Lion", "m"},
    {"BiasCorrectedAdam", "mv"}, {"BiasCorrectedAdamW", "mv"},
};

static void step(const char *name, size_t t, size_t n, float *w, const float *g, float *first, float *second,
                 double rate, const char *h)
{
    double betas[2] = {0, 0};
    const double eps = find(h, "eps") ? number(find(h, "eps")) : 0;
    const double weight_decay = find(h, "weight_decay") ? number(find(h, "weight_decay")) : 0;
    if (find(h, "betas"))
        numbers(find(h, "betas"), 2, betas);
    if (strcmp(name, "SGD") == 0)
        sgd(n, w, g, first, rate, number(get(h, "momentum")), weight_decay, number(get(h, "dampening")),
            *get(h, "nesterov") == 't');
    else if (strcmp(name, "RMSprop") == 0)
        rmsprop(n, w, g, first, rate, number(get(h, "alpha")), eps);
    else if (strcmp(name, "Adagrad") == 0)
        adagrad(n, w, g, first, rate, eps);
    else if (strcmp(name, "AdaDelta") == 0)
        adadelta(n, w, g, first, second, rate, number(get(h, "rho")), eps);
    else if (strcmp(name, "Adam") == 0)
        adam(n, w, g, first, second, rate, betas, eps);
    else if (strcmp(name, "AdamW") == 0)
        adamw(n, w, g, first, second, rate, betas, eps, weight_decay);
    else if (strcmp(name, "BiasCorrectedAdam") == 0)
        biascorrectedadam(n, w, g, first, second, rate, betas, eps, t);
    else if (strcmp(name, "BiasCorrectedAdamW") == 0)
        biascorrectedadamw(n, w, g, first, second, rate, betas, eps, weight_decay, t);
    else if (strcmp(name, "Adamax") == 0)
        adamax(n, w, g, first, second, rate, betas, eps);
    else
        lion(n, w, g, first, rate, betas, weight_decay);
}

/* Runs the steps of one parameter: the request itself, or a leaf of its tree. */
static void run_leaf(const char *leaf, const char *request, const char *name, const char *slots, unsigned digits)
{
    const char *h = get(request, "hyperparameters"), *gradients = get(leaf, "gradients");
    const char *done = find(request, "step"), *given = find(leaf, "state");
    const size_t before = done != NULL ? (size_t)number(done) : 0;
    const size_t steps = length_of(gradients), n = length_of(get(leaf, "parameter"));
    float *w = allocated(n, sizeof *w), *g = allocated(n, sizeof *g), *rows[3];
    float *state[2] = {allocated(n, sizeof *g), allocated(n, sizeof *g)};
    double *rates = allocated(steps, sizeof *rates);
    for (size_t k = 0; k < 3; k++)
        rows[k] = allocated(steps * n, sizeof *g);
    read_floats(get(leaf, "parameter"), n, 8, w);
    for (size_t k = 0; given != NULL && slots[k] != '\0'; k++)
        read_floats(get(given, (const char[]){slots[k], '\0'}), n, 8, state[k]);
    numbers(get(h, "learning_rate"), steps, rates);
    const char *row = next_item(gradients);
    for (size_t t = 0; t < steps; t++, row = next_item(skip_value(row))) {
        read_floats(row, n, digits, g);
        step(name, before + t + 1, n, w, g, state[0], state[1], rates[t], h);
        memcpy(rows[0] + t * n, w, n * sizeof *w);
        for (size_t k = 0; k < 2; k++)
            memcpy(rows[k + 1] + t * n, state[k], n * sizeof *w);
    }
    printf("\"parameters\": ");
    write_floats(rows[0], steps, n);
    printf(", \"state\": {");
    for (size_t k = 0; slots[k] != '\0'; k++) {
        printf(k > 0 ? ", \"%c\": " : "\"%c\": ", slots[k]);
        write_floats(rows[k + 1], steps, n);
    }
    printf("}");
    for (size_t k = 0; k < 3; k++)
        free(rows[k]);
    free(state[0]), free(state[1]), free(w), free(g), free(rates);
}

static void run(const char *request)
{
    const char *id = get(request, "id"), *optimizer = get(request, "optimizer"), *dtype = get(request, "dtype");
    const char *given = find(request, "gradient_dtype"), *tree = find(request, "tree");
    const char *gradient_dtype = given != NULL ? given : dtype;
    size_t kind = 0;
    const size_t kinds = sizeof optimizers / sizeof *optimizers;
    while (kind < kinds && !is(optimizer, optimizers[kind].name))
        kind++;
    printf("{\"id\": %.*s, ", (int)(skip_string(id) - id), id);
    const bool half = is(gradient_dtype, "bfloat16");
    if (kind == kinds || !is(dtype, "float32") || !(half || is(gradient_dtype, "float32"))) {
        printf("\"unsupported\": \"the port has no such optimizer, or not in this dtype\"}\n");
        return;
    }
    const char *name = optimizers[kind].name, *slots = optimizers[kind].slots;
    if (tree == NULL)
        run_leaf(request, request, name, slots, half ? 4 : 8);
    else {
        printf("\"tree\": [");
        const char *leaf = next_item(tree);
        for (size_t k = 0; leaf != NULL; k++, leaf = next_item(skip_value(leaf))) {
            printf(k > 0 ? ", {" : "{");
            run_leaf(leaf, request, name, slots, half ? 4 : 8);
            printf("}");
        }
        printf("]");
    }
    printf("}\n");
}

/* The next line of standard input, without its end, to be freed; NULL at the end. */
static char *read_line(void)
{
    size_t length = 0, size = 4096;
    char *line = allocated(size, 1);
    int c;
    while ((c = getchar()) != EOF && c != '\n') {
        if (length + 1 == size && (line = realloc(line, size *= 2)) == NULL)
            give_up("no memory");
        line[length++] = (char)c;
    }
    line[length] = '\0';
    if (c != EOF || length > 0)
        return line;
    free(line);
    return NULL;
}

int main(void)
{
    for (char *line; (line = read_line()) != NULL; free(line)) {
        const char *request = skip_space(line), *op = get(request, "op"), *newest = find(request, "newest");
        if (is(op, "stop"))
            return 0;
        if (is(op, "start"))
            printf("{\"protocol\": %d, \"name\": \"c-port\", \"version\": \"1\"}\n",
                   newest != NULL && number(newest) >= 2 ? 2 : 1);
        else
            run(request);
        fflush(stdout);
    }
    return 0;
}
