/* The optimizers in float32: C11 and libm. Each function advances n elements by one step, in place.
 *
 * Letters: w parameter, g gradient, m first moment, v second moment (or momentum buffer), u AdaDelta's second
 * accumulator, c Lion's direction, d denominator or step. All state starts at zero.
 *
 * Hyperparameters come as double: 1 - beta, and what corrects a bias, is formed in double and rounded once. Everything else is float, and each
 * operation must be rounded to float: compile with -std=c11 -ffp-contract=off, and without -ffast-math. */

#ifndef OPTIMIZERS_H
#define OPTIMIZERS_H

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#ifdef __FAST_MATH__
#error "-ffast-math changes what is computed"
#endif
_Static_assert(FLT_EVAL_METHOD == 0, "float operations must be rounded to float (on x86: -mfpmath=sse)");

/* beta m + (1 - beta) x */
static inline float mean(double beta, float m, float x)
{
    return (float)beta * m + (float)(1 - beta) * x;
}

static inline void sgd(size_t n, float *w, const float *g, float *v, double learning_rate, double momentum,
                       double weight_decay, double dampening, bool nesterov)
{
    const float rate = (float)learning_rate, mu = (float)momentum, kappa = (float)weight_decay;
    for (size_t i = 0; i < n; i++) {
        const float gi = kappa != 0 ? g[i] + kappa * w[i] : g[i];
        if (momentum != 0)
            v[i] = mu * v[i] + (float)(1 - dampening) * gi;
        const float d = momentum == 0 ? gi : nesterov ? gi + mu * v[i] : v[i];
        w[i] -= rate * d;
    }
}

static inline void rmsprop(size_t n, float *w, const float *g, float *v, double learning_rate, double alpha, double eps)
{
    for (size_t i = 0; i < n; i++) {
        v[i] = mean(alpha, v[i], g[i] * g[i]);
        w[i] -= (float)learning_rate * g[i] / (sqrtf(v[i]) + (float)eps);
    }
}

static inline void adagrad(size_t n, float *w, const float *g, float *v, double learning_rate, double eps)
{
    for (size_t i = 0; i < n; i++) {
        v[i] += g[i] * g[i];
        w[i] -= (float)learning_rate * g[i] / (sqrtf(v[i]) + (float)eps);
    }
}

static inline void adadelta(size_t n, float *w, const float *g, float *v, float *u, double learning_rate, double rho,
                            double eps)
{
    for (size_t i = 0; i < n; i++) {
        v[i] = mean(rho, v[i], g[i] * g[i]);
        const float d = sqrtf(u[i] + (float)eps) / sqrtf(v[i] + (float)eps) * g[i];
        u[i] = mean(rho, u[i], d * d);
        w[i] -= (float)learning_rate * d;
    }
}

static inline void adam(size_t n, float *w, const float *g, float *m, float *v, double learning_rate,
                        const double betas[2], double eps)
{
    for (size_t i = 0; i < n; i++) {
        m[i] = mean(betas[0], m[i], g[i]);
        v[i] = mean(betas[1], v[i], g[i] * g[i]);
        w[i] -= (float)learning_rate * m[i] / (sqrtf(v[i]) + (float)eps);
    }
}

static inline void adamw(size_t n, float *w, const float *g, float *m, float *v, double learning_rate,
                         const double betas[2], double eps, double weight_decay)
{
    const float keep = 1 - (float)learning_rate * (float)weight_decay;
    for (size_t i = 0; i < n; i++)
        w[i] *= keep;
    adam(n, w, g, m, v, learning_rate, betas, eps);
}

/* t: the number of this step, counted from 1 */
static inline void biascorrectedadam(size_t n, float *w, const float *g, float *m, float *v, double learning_rate,
                                     const double betas[2], double eps, size_t t)
{
    const float rate = (float)(learning_rate / (1 - pow(betas[0], (double)t)));
    const float root = (float)(1 / sqrt(1 - pow(betas[1], (double)t)));
    for (size_t i = 0; i < n; i++) {
        m[i] = mean(betas[0], m[i], g[i]);
        v[i] = mean(betas[1], v[i], g[i] * g[i]);
        w[i] -= rate * m[i] / (sqrtf(v[i]) * root + (float)eps);
    }
}

static inline void biascorrectedadamw(size_t n, float *w, const float *g, float *m, float *v, double learning_rate,
                                      const double betas[2], double eps, double weight_decay, size_t t)
{
    const float keep = 1 - (float)learning_rate * (float)weight_decay;
    for (size_t i = 0; i < n; i++)
        w[i] *= keep;
    biascorrectedadam(n, w, g, m, v, learning_rate, betas, eps, t);
}

static inline void adamax(size_t n, float *w, const float *g, float *m, float *v, double learning_rate,
                          const double betas[2], double eps)
{
    for (size_t i = 0; i < n; i++) {
        const float kept = (float)betas[1] * v[i], size = fabsf(g[i]);
        m[i] = mean(betas[0], m[i], g[i]);
        v[i] = kept > size || isnan(kept) ? kept : size; /* fmaxf would lose a NaN */
        w[i] -= (float)learning_rate * m[i] / (v[i] + (float)eps);
    }
}

static inline void lion(size_t n, float *w, const float *g, float *m, double learning_rate, const double betas[2],
                        double weight_decay)
{
    const float keep = 1 - (float)learning_rate * (float)weight_decay;
    for (size_t i = 0; i < n; i++) {
        const float c = mean(betas[0], m[i], g[i]);
        const float sign = isnan(c) ? c : (float)((c > 0) - (c < 0));
        m[i] = mean(betas[1], m[i], g[i]);
        w[i] = keep * w[i] - (float)learning_rate * sign;
    }
}

#endif
