// The optimizers in float32, one element at a time.
//
// Math.fround rounds to float32. A + − × ÷ or √ of two float32 numbers in double, rounded once more by it, is the
// correctly rounded float32 result; so f stands around every operation, and nothing else differs from the formula.
//
// Letters: w parameter, g gradient, m first moment, v second moment (or momentum buffer), u AdaDelta's second
// accumulator, c Lion's direction, d denominator or step, h hyperparameters. 1 − β, and what
// corrects a bias, is formed in double and rounded once.

const f = Math.fround;

const mean = (beta, m, x) => f(f(f(beta) * m) + f(f(1 - beta) * x)); // βm + (1−β)x
const moved = (h, w, a, d) => f(w - f(f(f(h.learning_rate) * a) / d)); // w − λa/d
const decayed = (h, w) => f(f(1 - f(f(h.learning_rate) * f(h.weight_decay))) * w); // (1−λκ)w
const sign = (c) => Math.sign(c) + 0; // + 0: the sign of −0 is 0

function sgd(h, w, g, { v }) {
  const [rate, mu, kappa] = [f(h.learning_rate), f(h.momentum), f(h.weight_decay)];
  if (kappa) g = f(g + f(kappa * w));
  if (h.momentum === 0) return { w: f(w - f(rate * g)), v };
  v = f(f(mu * v) + f(f(1 - h.dampening) * g));
  return { w: f(w - f(rate * (h.nesterov ? f(g + f(mu * v)) : v))), v };
}

function rmsprop(h, w, g, { v }) {
  v = mean(h.alpha, v, f(g * g));
  return { w: moved(h, w, g, f(f(Math.sqrt(v)) + f(h.eps))), v };
}

function adagrad(h, w, g, { v }) {
  v = f(v + f(g * g));
  return { w: moved(h, w, g, f(f(Math.sqrt(v)) + f(h.eps))), v };
}

function adadelta(h, w, g, { v, u }) {
  const eps = f(h.eps);
  v = mean(h.rho, v, f(g * g));
  const d = f(f(f(Math.sqrt(f(u + eps))) / f(Math.sqrt(f(v + eps)))) * g);
  u = mean(h.rho, u, f(d * d));
  return { w: f(w - f(f(h.learning_rate) * d)), v, u };
}

function adam(h, w, g, { m, v }) {
  m = mean(h.betas[0], m, g);
  v = mean(h.betas[1], v, f(g * g));
  return { w: moved(h, w, m, f(f(Math.sqrt(v)) + f(h.eps))), m, v };
}

function adamw(h, w, g, state) {
  return adam(h, decayed(h, w), g, state);
}

function biasCorrectedAdam(h, w, g, { m, v }, t) {
  const rate = f(h.learning_rate / (1 - h.betas[0] ** t));
  const root = f(1 / Math.sqrt(1 - h.betas[1] ** t));
  m = mean(h.betas[0], m, g);
  v = mean(h.betas[1], v, f(g * g));
  return { w: f(w - f(f(rate * m) / f(f(f(Math.sqrt(v)) * root) + f(h.eps)))), m, v };
}

function biasCorrectedAdamW(h, w, g, state, t) {
  return biasCorrectedAdam(h, decayed(h, w), g, state, t);
}

function adamax(h, w, g, { m, v }) {
  m = mean(h.betas[0], m, g);
  v = Math.max(f(f(h.betas[1]) * v), Math.abs(g));
  return { w: moved(h, w, m, f(v + f(h.eps))), m, v };
}

function lion(h, w, g, { m }) {
  const c = mean(h.betas[0], m, g);
  m = mean(h.betas[1], m, g);
  return { w: f(decayed(h, w) - f(f(h.learning_rate) * sign(c))), m };
}

/** For each optimizer: its hyperparameters after learning_rate with their defaults, its state slots, and one step. */
export const optimizers = {
  SGD: { defaults: { momentum: 0, weight_decay: 0, dampening: 0, nesterov: false }, slots: ["v"], step: sgd },
  RMSprop: { defaults: { alpha: 0.99, eps: 1e-8 }, slots: ["v"], step: rmsprop },
  Adagrad: { defaults: { eps: 1e-8 }, slots: ["v"], step: adagrad },
  AdaDelta: { defaults: { rho: 0.9, eps: 1e-6 }, slots: ["v", "u"], step: adadelta },
  Adam: { defaults: { betas: [0.9, 0.999], eps: 1e-8 }, slots: ["m", "v"], step: adam },
  AdamW: { defaults: { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }, slots: ["m", "v"], step: adamw },
  Adamax: { defaults: { betas: [0.9, 0.999], eps: 1e-8 }, slots: ["m", "v"], step: adamax },
  Lion: { defaults: { betas: [0.9, 0.99], weight_decay: 0 }, slots: ["m"], step: lion },
  BiasCorrectedAdam: { defaults: { betas: [0.9, 0.999], eps: 1e-8 }, slots: ["m", "v"], step: biasCorrectedAdam },
  BiasCorrectedAdamW: {
    defaults: { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }, slots: ["m", "v"], step: biasCorrectedAdamW,
  },
};

/** The state of one element before the first step: every slot is 0. */
export function init(name) {
  return Object.fromEntries(optimizers[name].slots.map((slot) => [slot, 0]));
}

/**
 * One step of one element; w, g and the state hold float32 numbers, and t is the number of the step, from 1.
 * @returns a new object with w and every state slot, which is also the state of the next step
 */
export function step(name, hyperparameters, w, g, state, t) {
  return optimizers[name].step(hyperparameters, w, g, state, t);
}

const view = new DataView(new ArrayBuffer(4));
const half = (offset) => view.getUint16(offset).toString(16).padStart(4, "0");

/** The bit pattern of a float32 number: 8 hexadecimal digits. (By halves, as JavaScript prints small integers faster.) */
export function toBits(x) {
  view.setFloat32(0, x);
  return half(0) + half(2);
}

/** The float32 number of a bit pattern. */
export function fromBits(pattern) {
  view.setUint32(0, parseInt(pattern, 16));
  return view.getFloat32(0);
}
