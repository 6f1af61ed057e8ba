/* Derives the published vectors a second time, in __float128, and compares. It shares nothing with the package: the
   formulas, the reader and the rounding are written anew. Build: cc -O1 verify.c -lquadmath -lm; run: ./a.out adam.json …

   Of every element of every step of every case:
   - `exact` is what is computed here, to 1e-28 of the largest number that went into the sums, and for Muon to what
     float128 cannot tell;
   - `nearest` is the number of the dtype next to it, and an infinity where IEEE 754 rounds to one;
   - `low` and `high` enclose `nearest`, are both NaN where it is NaN, and are infinite in a case that only informs. */

#include <math.h>
#include <quadmath.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef __float128 real;

enum { STEPS = 16, SIZE = 64, WORD = 64, LINE = 1 << 16 };
enum { EXACT, HIGH, LOW, NEAREST, FIELDS };
static const char *const FIELD[FIELDS] = {"exact", "high", "low", "nearest"};
static const char QUANTITY[] = "wmvuRCVM"; /* how an expected quantity is kept; "parameter" is w, Adafactor's are last */
enum { QUANTITIES = sizeof QUANTITY - 1 };

static char letter_of(const char *key)
{
    if (!strcmp(key, "parameter")) return 'w';
    if (!strcmp(key, "exp_avg_sq_row")) return 'R';
    if (!strcmp(key, "exp_avg_sq_col")) return 'C';
    if (!strcmp(key, "exp_avg_sq")) return 'V';
    return !strcmp(key, "exp_avg") ? 'M' : key[0];
}

typedef struct {
    char id[128], dtype[16], regime[16], level[16];
    double rate[STEPS], momentum, weight_decay, dampening, alpha, rho, eps, eps_2, betas[2];
    double clip_threshold, decay_rate, beta_1;
    int rates, nesterov, ns_steps, size, steps, expected_steps, axes, shape[SIZE];
    int averaged, scale_parameter, relative_step, warmup_init;
    char parameter[SIZE][WORD], gradient[STEPS][SIZE][WORD], expected[STEPS][QUANTITIES][FIELDS][SIZE][WORD];
    int count[STEPS][QUANTITIES][FIELDS];
} Case;

static const char *file_name;
static long problems, values;

static void problem(const Case *c, int step, char quantity, int index, const char *what)
{
    printf("%s: %s, step %d, %c, element %d: %s\n", file_name, c->id, step + 1, quantity, index, what);
    problems++;
}

/* The four formats: digits of the significand, largest exponent. */
typedef struct {
    int precision, emax, width;
} Format;

static Format format_of(const char *dtype)
{
    if (!strcmp(dtype, "float16")) return (Format){11, 15, 16};
    if (!strcmp(dtype, "bfloat16")) return (Format){8, 127, 16};
    if (!strcmp(dtype, "float32")) return (Format){24, 127, 32};
    if (!strcmp(dtype, "float64")) return (Format){53, 1023, 64};
    fprintf(stderr, "unknown dtype %s\n", dtype);
    exit(2);
}

/* The number that a pattern without its sign stands for; the pattern of infinity stands for 2^(emax + 1). */
static real magnitude(unsigned long long pattern, Format f)
{
    unsigned long long hidden = 1ULL << (f.precision - 1);
    unsigned long long field = pattern >> (f.precision - 1), digits = pattern & (hidden - 1);
    int exponent = (field ? (int)field : 1) - f.emax - (f.precision - 1);
    return ldexpq((real)(field ? digits | hidden : digits), exponent);
}

static unsigned long long bits_of(const char *word, Format f, int *negative)
{
    char *end;
    unsigned long long pattern = strtoull(word, &end, 16);
    if (*end || (int)strlen(word) != f.width / 4) {
        fprintf(stderr, "%s: %s is no pattern of %d bits\n", file_name, word, f.width);
        exit(2);
    }
    *negative = (int)(pattern >> (f.width - 1));
    return pattern & ~(1ULL << (f.width - 1));
}

static unsigned long long infinity_of(Format f)
{
    return (2ULL * f.emax + 1) << (f.precision - 1);
}

static real number(const char *word, Format f)
{
    int negative;
    unsigned long long pattern = bits_of(word, f, &negative), top = infinity_of(f);
    real size = pattern > top ? nanq("") : pattern == top ? HUGE_VALQ : magnitude(pattern, f);
    return negative ? -size : size;
}

/* Whether a pattern is what x rounds to; within `slack` of a half-way point either neighbour is. */
static int is_nearest(const char *word, Format f, real x, real slack)
{
    int negative;
    unsigned long long pattern = bits_of(word, f, &negative), top = infinity_of(f);
    if (isnanq(x) || pattern > top) return isnanq(x) && pattern > top;
    real size = negative ? -x : x;
    real below = pattern ? (magnitude(pattern, f) + magnitude(pattern - 1, f)) / 2 : -magnitude(1, f) / 2;
    real above = pattern < top ? (magnitude(pattern, f) + magnitude(pattern + 1, f)) / 2 : HUGE_VALQ;
    return size >= below - slack && size <= above + slack;
}

/* In the regime `special` an operation gives what has the range of float32. */
static int special;

static real fit(real x)
{
    if (!special || x == 0) return x;
    if (fabsq(x) <= ldexpq(1, -150)) return 0;
    if (fabsq(x) >= ldexpq(1, 128) - ldexpq(1, 103)) return x > 0 ? HUGE_VALQ : -HUGE_VALQ;
    return x;
}

static real mul(real a, real b) { return fit(a * b); }
static real add(real a, real b) { return fit(a + b); }
static real sub(real a, real b) { return fit(a - b); }
static real over(real a, real b) { return fit(a / b); }
static real mean(real b, real old, real new) { return add(mul(b, old), mul(1 - b, new)); }
static real sign(real x) { return isnanq(x) ? x : (x > 0) - (x < 0); }
static real larger(real a, real b) { return isnanq(a) || isnanq(b) ? nanq("") : a > b ? a : b; }

/* One element's numbers; `most` is the largest term that went into w, m, v and u, `away` how far rounding carries. */
typedef struct {
    real x[QUANTITIES], most[QUANTITIES], away[QUANTITIES];
} Element;

static void note(Element *e, int quantity, real term)
{
    term = fabsq(term);
    if (finiteq(term) && term > e->most[quantity]) e->most[quantity] = term;
}

static void step(const char *optimizer, const Case *c, int t, real g, Element *e)
{
    real w = e->x[0], m = e->x[1], v = e->x[2], u = e->x[3], d = 0;
    real rate = c->rate[c->rates > 1 ? t : 0], kappa = c->weight_decay, eps = c->eps, b1 = c->betas[0], b2 = c->betas[1];

    if (!strcmp(optimizer, "SGD")) {
        real mu = c->momentum;
        g = add(g, mul(kappa, w));
        d = g;
        if (mu != 0) {
            v = add(mul(mu, v), mul(1 - (real)c->dampening, g));
            d = c->nesterov ? add(g, mul(mu, v)) : v;
        }
        d = mul(rate, d);
        note(e, 2, g);
    } else if (!strcmp(optimizer, "RMSprop") || !strcmp(optimizer, "Adagrad")) {
        v = optimizer[0] == 'R' ? mean(c->alpha, v, mul(g, g)) : add(v, mul(g, g));
        d = over(mul(rate, g), add(sqrtq(v), eps));
        note(e, 2, g * g);
    } else if (!strcmp(optimizer, "AdaDelta")) {
        v = mean(c->rho, v, mul(g, g));
        d = mul(over(sqrtq(add(u, eps)), sqrtq(add(v, eps))), g);
        u = mean(c->rho, u, mul(d, d));
        note(e, 2, g * g);
        note(e, 3, d * d);
        d = mul(rate, d);
    } else if (strstr(optimizer, "Adam") && strcmp(optimizer, "Adamax")) { /* Adam, AdamW, and both corrected */
        int corrected = !strncmp(optimizer, "BiasCorrected", 13);
        if (optimizer[strlen(optimizer) - 1] == 'W') w = mul(1 - rate * kappa, w);
        m = mean(b1, m, g);
        v = mean(b2, v, mul(g, g));
        d = mul(rate, corrected ? over(m, 1 - powq(b1, t + 1)) : m);
        d = over(d, add(sqrtq(corrected ? over(v, 1 - powq(b2, t + 1)) : v), eps));
        note(e, 1, g);
        note(e, 2, g * g);
    } else if (!strcmp(optimizer, "Adamax")) {
        m = mean(b1, m, g);
        v = larger(mul(b2, v), fabsq(g));
        d = over(mul(rate, m), add(v, eps));
        note(e, 1, g);
        note(e, 2, g);
    } else if (!strcmp(optimizer, "Lion")) {
        d = mul(rate, sign(mean(b1, m, g)));
        m = mean(b2, m, g);
        w = mul(1 - rate * kappa, w);
        note(e, 1, g);
    } else {
        fprintf(stderr, "unknown optimizer %s\n", optimizer);
        exit(2);
    }
    note(e, 0, w);
    note(e, 0, d);
    e->x[0] = sub(w, d);
    e->x[1] = m;
    e->x[2] = v;
    e->x[3] = u;
}

/* One step of Adafactor: all elements together. R and C stand in the first elements, as many as they have. */
static real root_mean_square(const real *x, int n)
{
    real sum = 0;
    for (int i = 0; i < n; i++) sum += mul(x[i], x[i]);
    return sqrtq(over(fit(sum), n));
}

static void adafactor(const Case *c, int t, const real *g, Element *e)
{
    enum { W, ROW = 4, COLUMN, SQUARE, MEAN };
    int n = c->size, columns = c->axes > 1 ? c->shape[c->axes - 1] : 1, rows = c->axes > 1 ? c->shape[c->axes - 2] : 1;
    real w[SIZE], x[SIZE], rate = c->rates ? c->rate[c->rates > 1 ? t : 0] : 0;
    for (int i = 0; i < n; i++) w[i] = e[i].x[W];
    if (c->relative_step) {
        real most = c->warmup_init ? (real)1e-6 * (t + 1) : (real)1e-2, least = 1 / sqrtq(t + 1);
        rate = most < least ? most : least;
    }
    if (c->scale_parameter) rate = mul(larger(c->eps_2, root_mean_square(w, n)), rate);
    real rest = powq(t + 1, c->decay_rate), beta = 1 - rest;
    for (int i = 0; i < n; i++) x[i] = add(mul(g[i], g[i]), c->eps);
    if (c->axes > 1) {
        for (int r = 0; r < n / columns; r++) {
            real sum = 0;
            for (int j = 0; j < columns; j++) sum += x[r * columns + j];
            sum = over(fit(sum), columns);
            e[r].x[ROW] = add(mul(beta, e[r].x[ROW]), mul(1 - beta, sum));
            note(&e[r], ROW, sum);
        }
        for (int k = 0; k < n / rows; k++) {
            real sum = 0;
            for (int i = 0; i < rows; i++) sum += x[(k / columns * rows + i) * columns + k % columns];
            sum = over(fit(sum), rows);
            e[k].x[COLUMN] = add(mul(beta, e[k].x[COLUMN]), mul(1 - beta, sum));
            note(&e[k], COLUMN, sum);
        }
        for (int i = 0; i < n; i++) {
            int r = i / columns, batch = r / rows;
            real sum = 0;
            for (int k = 0; k < rows; k++) sum += e[batch * rows + k].x[ROW];
            real across = over(1, sqrtq(over(e[r].x[ROW], over(fit(sum), rows))));
            x[i] = mul(mul(across, over(1, sqrtq(e[batch * columns + i % columns].x[COLUMN]))), g[i]);
        }
    } else
        for (int i = 0; i < n; i++) {
            e[i].x[SQUARE] = add(mul(beta, e[i].x[SQUARE]), mul(1 - beta, x[i]));
            note(&e[i], SQUARE, x[i]);
            x[i] = mul(over(1, sqrtq(e[i].x[SQUARE])), g[i]);
        }
    real clip = larger(1, over(root_mean_square(x, n), c->clip_threshold));
    for (int i = 0; i < n; i++) {
        x[i] = mul(rate, over(x[i], clip));
        note(&e[i], MEAN, x[i]);
        note(&e[i], W, x[i]);
        if (c->averaged) x[i] = e[i].x[MEAN] = mean(c->beta_1, e[i].x[MEAN], x[i]);
        real kept = sub(w[i], mul(mul(c->weight_decay, rate), w[i]));
        note(&e[i], W, kept);
        e[i].x[W] = sub(kept, x[i]);
    }
}

/* Newton–Schulz of a matrix, in place: first what has norm 1, nearly, then the polynomial again and again.
   `noise` moves every second element up and the others down, by so much of themselves, before the polynomial. */
static void orthogonalize(real *x, int rows, int columns, int times, real noise)
{
    const real a = 3.4445, b = -4.7750, c = 2.0315;
    real sum = 0, norm, gram[SIZE][SIZE], factor[SIZE][SIZE], next[SIZE];
    int finite = 1;
    for (int i = 0; i < rows * columns; i++) finite &= finiteq(x[i]) != 0, sum += x[i] * x[i];
    norm = sqrtq(sum) + (real)1e-7;
    for (int i = 0; i < rows * columns; i++) x[i] = finite ? x[i] / norm * (1 + (i % 2 ? noise : -noise)) : nanq("");
    while (times--) {
        for (int i = 0; i < rows; i++)
            for (int k = 0; k < rows; k++) {
                gram[i][k] = 0;
                for (int j = 0; j < columns; j++) gram[i][k] += x[i * columns + j] * x[k * columns + j];
            }
        for (int i = 0; i < rows; i++)
            for (int k = 0; k < rows; k++) {
                factor[i][k] = b * gram[i][k];
                for (int j = 0; j < rows; j++) factor[i][k] += c * gram[i][j] * gram[j][k];
            }
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) {
                next[i * columns + j] = a * x[i * columns + j];
                for (int k = 0; k < rows; k++) next[i * columns + j] += factor[i][k] * x[k * columns + j];
            }
        memcpy(x, next, sizeof *x * rows * columns);
    }
}

/* One step of Muon: all elements together. */
static void muon_step(const Case *c, int t, const real *g, Element *e, real noise)
{
    enum { W, V = 2 };
    int n = c->size, whole = c->axes > 1;
    real d[SIZE], rate = c->rate[c->rates > 1 ? t : 0], mu = c->momentum, norm = 0;
    for (int i = 0; i < n; i++) {
        real h = add(g[i], mul(c->weight_decay, e[i].x[W]));
        note(&e[i], V, h);
        e[i].x[V] = mean(mu, e[i].x[V], h);
        d[i] = c->nesterov ? mean(mu, e[i].x[V], h) : e[i].x[V];
    }
    if (whole) {
        real ratio = (real)c->shape[c->axes - 2] / c->shape[c->axes - 1];
        orthogonalize(d, c->shape[0], n / c->shape[0], c->ns_steps, noise);
        if (ratio > 1) rate *= sqrtq(ratio);
        for (int i = 0; i < n; i++) norm += d[i] * d[i];
        norm = rate * sqrtq(norm);
    }
    for (int i = 0; i < n; i++) {
        d[i] = mul(rate, d[i]);
        note(&e[i], W, e[i].x[W]);
        note(&e[i], W, whole ? norm : d[i]);
        e[i].x[W] = sub(e[i].x[W], d[i]);
    }
}

/* Muon, and how far its rounding may carry it. In N steps of Newton–Schulz an error grows by 3.97ᴺ at most, the largest
   slope of the polynomial where singular values lie: 4000 in six steps, of the 1e6 units in 1e-28 of ‖X‖. But weight
   decay brings errors of w into the next d, where they may be most of it, and so on through all updates. What becomes of
   them there is seen by a second run whose X starts 2⁻¹⁰² off, 2000 units in every update. The first run's own errors are
   worth less than 100: a polynomial adds at most 12 terms at a time, 14‖X‖ in all, which makes 168 units after it, and
   these grow by one step less. So values agree to 1e-28 of the largest term and what the second run is away at most. */
static void muon(const Case *c, int t, const real *g, Element *e)
{
    static Element moved[SIZE];
    if (t == 0) memcpy(moved, e, sizeof moved);
    muon_step(c, t, g, e, 0);
    muon_step(c, t, g, moved, ldexpq(1, -102));
    for (int quantity = 0; quantity < QUANTITIES; quantity++) {
        real away = 0;
        for (int i = 0; i < c->size; i++) {
            real between = fabsq(e[i].x[quantity] - moved[i].x[quantity]);
            if (between > away) away = between;
        }
        for (int i = 0; i < c->size; i++) e[i].away[quantity] = away;
    }
}

static void compare(const Case *c, Format f, int t, int quantity, int index, const Element *e)
{
    const char *word[FIELDS];
    for (int field = 0; field < FIELDS; field++) word[field] = c->expected[t][quantity][field][index];
    real x = e->x[quantity], slack = e->most[quantity] * 1e-28Q + e->away[quantity];
    char letter = QUANTITY[quantity], *end;
    real text = strtoflt128(word[EXACT], &end);
    values++;
    int same = isnanq(x) ? isnanq(text) : finiteq(x) ? fabsq(text - x) <= slack : text == x;
    if (*end || !same) problem(c, t, letter, index, "`exact` is wrong");
    if (!is_nearest(word[NEAREST], f, x, slack)) problem(c, t, letter, index, "`nearest` is wrong");
    real low = number(word[LOW], f), high = number(word[HIGH], f), near = number(word[NEAREST], f);
    int untested = low == -HUGE_VALQ && high == HUGE_VALQ;
    int encloses = isnanq(near) ? isnanq(low) && isnanq(high) : low <= near && near <= high;
    if (!strcmp(c->level, "informative") ? !untested : !untested && !encloses)
        problem(c, t, letter, index, "`low` and `high` are wrong");
}

static void check(const char *optimizer, const Case *c)
{
    static Element e[SIZE];
    int factored = !strcmp(optimizer, "Adafactor"), whole = factored || !strcmp(optimizer, "Muon");
    const char *slots = factored ? c->axes > 1 ? c->averaged ? "wRCM" : "wRC" : c->averaged ? "wVM" : "wV"
                      : !strcmp(optimizer, "AdaDelta") ? "wvu" : !strcmp(optimizer, "Lion") ? "wm"
                      : strstr(optimizer, "Adam") ? "wmv" : "wv";
    int sizes[128];
    for (const char *s = QUANTITY; *s; s++) sizes[(int)*s] = strchr(slots, *s) ? c->size : 0;
    if (sizes['R']) {
        sizes['R'] /= c->shape[c->axes - 1];
        sizes['C'] /= c->shape[c->axes - 2];
    }
    Format f = format_of(c->dtype);
    special = !strcmp(c->regime, "special");
    memset(e, 0, sizeof e);
    int rated = c->rates == 1 || c->rates == c->steps || (factored && c->rates == 0 && c->relative_step);
    if (c->steps == 0 || c->size == 0 || c->expected_steps != c->steps || !rated)
        problem(c, 0, 'w', 0, "the numbers of steps or elements do not fit");
    for (int t = 0; t < c->steps; t++) {
        for (const char *s = QUANTITY; *s; s++)
            for (int field = 0; field < FIELDS; field++)
                if (c->count[t][s - QUANTITY][field] != sizes[(int)*s])
                    problem(c, t, *s, 0, "another number of elements");
        real g[SIZE];
        for (int i = 0; i < c->size; i++) {
            if (t == 0) note(&e[i], 0, e[i].x[0] = number(c->parameter[i], f));
            g[i] = number(c->gradient[t][i], f);
            if (!whole) step(optimizer, c, t, g[i], &e[i]);
        }
        if (whole) (factored ? adafactor : muon)(c, t, g, e);
        for (const char *s = slots; *s; s++)
            for (int i = 0; i < sizes[(int)*s]; i++) compare(c, f, t, (int)(strchr(QUANTITY, *s) - QUANTITY), i, &e[i]);
    }
}

/* The strings, or the numbers, of a line. */
static int words(const char *line, char out[][WORD], int most)
{
    int n = 0;
    const char *start = strchr(line, '['), *p = start ? start + 1 : strchr(line, ':') + 1;
    while (*(p += strspn(p, " \",]\n")) && n < most) {
        size_t length = strcspn(p, " \",]\n");
        snprintf(out[n++], WORD, "%.*s", (int)length, p);
        p += length;
    }
    return n;
}

static void read_line(Case *c, const char *line, char *quantity)
{
    char key[32] = "", word[SIZE][WORD];
    int indent = (int)strspn(line, " "), n;
    sscanf(line + indent, "\"%31[^\"]\"", key);
    if (indent == 4 && line[4] == '{') c->expected_steps++;
    if (indent == 4 && line[4] == '[') words(line, c->gradient[c->steps++], SIZE);
    if (indent >= 5 && strchr(line, '{')) *quantity = letter_of(key);
    for (int field = 0; field < FIELDS; field++)
        if (indent >= 6 && !strcmp(key, FIELD[field])) {
            int t = c->expected_steps - 1, q = (int)(strchr(QUANTITY, *quantity) - QUANTITY);
            c->count[t][q][field] = words(line, c->expected[t][q][field], SIZE);
        }
    if (indent == 3 && !strcmp(key, "parameter")) c->size = words(line, c->parameter, SIZE);
    if (indent == 3 && !strcmp(key, "shape"))
        for (c->axes = words(line, word, SIZE), n = 0; n < c->axes; n++) c->shape[n] = atoi(word[n]);
    char *text = !strcmp(key, "id") ? c->id : !strcmp(key, "dtype") ? c->dtype : !strcmp(key, "regime") ? c->regime
               : !strcmp(key, "level") ? c->level : NULL;
    if (indent == 3 && text) sscanf(strchr(line, ':'), ": \"%127[^\"]\"", text);
    if (indent != 4 || line[4] != '"') return;
    n = words(line, word, SIZE);
    if (!strcmp(key, "learning_rate") && strcmp(word[0], "null"))
        for (c->rates = 0; c->rates < n; c->rates++) c->rate[c->rates] = strtod(word[c->rates], NULL);
    if (!strcmp(key, "betas")) c->betas[0] = strtod(word[0], NULL), c->betas[1] = strtod(word[1], NULL);
    if (!strcmp(key, "ns_steps")) c->ns_steps = atoi(word[0]);
    if (!strcmp(key, "eps") && n > 1) c->eps_2 = strtod(word[1], NULL);
    if (!strcmp(key, "beta_1")) c->averaged = strcmp(word[0], "null") != 0;
    const char *const flags[] = {"nesterov", "scale_parameter", "relative_step", "warmup_init"};
    int *const set[] = {&c->nesterov, &c->scale_parameter, &c->relative_step, &c->warmup_init};
    for (int i = 0; i < 4; i++)
        if (!strcmp(key, flags[i])) *set[i] = !strcmp(word[0], "true");
    const char *const names[] = {"momentum", "weight_decay", "dampening", "alpha", "rho", "eps",
                                 "clip_threshold", "decay_rate", "beta_1"};
    double *const places[] = {&c->momentum, &c->weight_decay, &c->dampening, &c->alpha, &c->rho, &c->eps,
                              &c->clip_threshold, &c->decay_rate, &c->beta_1};
    for (int i = 0; i < 9; i++)
        if (!strcmp(key, names[i])) *places[i] = strtod(word[0], NULL);
}

int main(int argc, char **argv)
{
    static Case cases[STEPS * 8];
    static char line[LINE];
    long total = 0;
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(file_name = argv[i], "r");
        if (!file) return perror(argv[i]), 2;
        int n = 0;
        char quantity = 'w', optimizer[32] = "";
        memset(cases, 0, sizeof cases);
        while (fgets(line, sizeof line, file)) {
            if (sscanf(line, " \"optimizer\": \"%31[^\"]\"", optimizer) == 1) continue;
            if (!strncmp(line, "  }", 3)) n++;
            else if (n < (int)(sizeof cases / sizeof *cases)) read_line(&cases[n], line, &quantity);
        }
        fclose(file);
        for (int k = 0; k < n; k++) check(optimizer, &cases[k]); /* the optimizer's name follows the cases */
        total += n;
    }
    printf("%ld cases, %ld values, %ld problems\n", total, values, problems);
    return problems != 0 || values == 0;
}
